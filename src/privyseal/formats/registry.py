# SPDX-License-Identifier: Apache-2.0
"""The formats, as one explicit tuple, and the two questions that are asked of all of them."""

from typing import Final

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.formats.authenticode import PE
from privyseal.formats.model import Format, Preimage, PreimageFacts
from privyseal.formats.opaque import DIGEST
from privyseal.formats.usb import LEASE

__all__ = ["FORMATS", "HEAD_BYTES", "detect_format", "format_named", "read_preimage"]

#: How much of a file `detect_format` wants to see.
HEAD_BYTES: Final = 4096
FORMATS: Final[tuple[Format, ...]] = (PE, DIGEST, LEASE)


def format_named(name: str, formats: tuple[Format, ...] = FORMATS) -> Format:
    """The format of that name.

    Raises:
        UnsupportedInputError: `format.unknown`.
    """
    for candidate in formats:
        if candidate.name == name:
            return candidate
    known = ", ".join(candidate.name for candidate in formats)
    raise UnsupportedInputError("format.unknown", f"format {name!r} is not known; known are {known}")


def detect_format(head: bytes, file_name: str, formats: tuple[Format, ...] = FORMATS) -> Format:
    """The format of a file by its first 4096 bytes and its name.

    Raises:
        MalformedInputError: `file.empty`.
        UnsupportedInputError: `format.not_recognised`.
    """
    if not head:
        raise MalformedInputError("file.empty", f"{file_name} is empty", hint="check the build step that wrote it")
    for candidate in formats:
        if candidate.detect is not None and candidate.detect(head, file_name):
            return candidate
    titles = ", ".join(candidate.title for candidate in formats if candidate.detect is not None)
    raise UnsupportedInputError(
        "format.not_recognised", f"{file_name} is none of the formats that can be signed: {titles}"
    )


def read_preimage(name: str, preimage: Preimage, formats: tuple[Format, ...] = FORMATS) -> PreimageFacts:
    """Parse a preimage as the named format, and only if no other format would accept it too (promise 3).

    Raises:
        UnsupportedInputError: `format.unknown`.
        MalformedInputError: what the format says, or `preimage.ambiguous`.
    """
    facts = format_named(name, formats).parse_preimage(preimage)
    for other in formats:
        if other.name == name:
            continue
        try:
            other.parse_preimage(preimage)
        except (MalformedInputError, UnsupportedInputError):
            continue
        raise MalformedInputError(
            "preimage.ambiguous", f"the preimage reads as {name} and as {other.name}; such a request is refused"
        )
    return facts
