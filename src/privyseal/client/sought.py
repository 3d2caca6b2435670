# SPDX-License-Identifier: Apache-2.0
"""What a log may know a file by: its digests, recomputed in its format, and those of the signatures in it."""

import hashlib
import re
from pathlib import Path
from typing import BinaryIO, Final

from privyseal.client.files import open_source
from privyseal.client.log_uses import Sought
from privyseal.errors import MalformedInputError, PrivysealError, UnsupportedInputError
from privyseal.formats.model import SignOptions
from privyseal.formats.registry import detect_format

__all__ = ["sought_by_digest", "sought_by_file"]

_DIGEST: Final = re.compile(r"(?:sha(?:256|384|512):)?((?:[0-9a-fA-F]{64}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128}))")
_ALGORITHMS: Final = ("sha256", "sha384", "sha512")
_HEAD_BYTES: Final = 4096


def sought_by_digest(text: str) -> Sought | None:
    """The digest that a text is, or None."""
    match = _DIGEST.fullmatch(text)
    return None if match is None else Sought(digests=frozenset((match[1].lower(),)))


def sought_by_file(path: Path) -> tuple[Sought, PrivysealError | None]:
    """What a file may be known by, and why it could not be read in a format, if so: its digest counts all the same.

    Raises:
        MalformedInputError: `file.unreadable`. UnsupportedInputError: `file.not_regular`.
    """
    with open_source(path) as source:
        try:
            whole = hashlib.file_digest(source.stream, "sha256").hexdigest()
            try:
                artifacts, signatures = _in_its_format(source.stream, str(path))
            except (MalformedInputError, UnsupportedInputError) as error:
                return Sought(files=frozenset((whole,))), error
        except OSError as error:
            raise MalformedInputError("file.unreadable", f"cannot read {path}: {error.strerror}") from error
    return Sought(files=frozenset((whole,)), artifacts=artifacts, signatures=signatures), None


def _in_its_format(stream: BinaryIO, name: str) -> tuple[frozenset[tuple[str, str]], tuple[str, ...]]:
    stream.seek(0)
    chosen = detect_format(stream.read(_HEAD_BYTES), name)
    artifacts: set[tuple[str, str]] = set()
    signatures: tuple[str, ...] = ()
    for algorithm in _ALGORITHMS:
        stream.seek(0)
        scan = chosen.scan(stream, SignOptions(digest_algorithm=algorithm))
        artifacts.add((scan.artifact.algorithm, scan.artifact.digest.hex()))
        if chosen.edits is not None and not signatures:
            signatures = tuple(hashlib.sha256(value).hexdigest() for value in chosen.edits.signature_values(scan))
    return frozenset(artifacts), signatures
