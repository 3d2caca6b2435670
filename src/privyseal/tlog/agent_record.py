# SPDX-License-Identifier: Apache-2.0
"""What an agent signed under, as a file that anybody can hold against the log: JSON Lines.

The first line names the agent and how many operations follow; each operation has the INTENT entry and the signed
checkpoint under which the agent was shown it, in the order of the checkpoints' sizes; the last line has the newest
checkpoint that the agent accepted, if there is one. Nothing in it is secret.
"""

from typing import Final, Literal

import msgspec

from privyseal.errors import MalformedInputError

__all__ = ["MAX_LINE_BYTES", "Held", "Operation", "RecordHead", "RecordLine", "encode_line", "parse_line"]

#: Room for the longest entry and the longest note with each byte escaped, and a little more.
MAX_LINE_BYTES: Final = 2 * 1024 * 1024


class RecordHead(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="agent", forbid_unknown_fields=True):
    """Whose record it is.

    Attributes:
        agent: SHA-256 of the agent's request key in hex, as it stands in entries.
        origin: The log.
        operations: How many lines of them follow.
        v: Version of this form: 1.
    """

    agent: str
    origin: str
    operations: int
    v: Literal[1] = 1


class Operation(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="operation", forbid_unknown_fields=True):
    """One use of a token.

    Attributes:
        checkpoint: The signed note.
        entry: The INTENT entry, verbatim.
        outcome: How it ended as far as the agent knows; `begun` if it does not.
        signature: SHA-256 of the signature value in hex; empty unless `signed`.
    """

    checkpoint: str
    entry: str
    outcome: Literal["begun", "signed", "failed"]
    signature: str


class Held(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag="held", forbid_unknown_fields=True):
    """The newest checkpoint that the agent accepted, a signed note."""

    checkpoint: str


RecordLine = RecordHead | Operation | Held

_DECODER: Final[msgspec.json.Decoder[RecordLine]] = msgspec.json.Decoder(RecordLine)


def encode_line(line: RecordLine) -> bytes:
    """A line with its newline."""
    return msgspec.json.encode(line) + b"\n"


def parse_line(data: bytes, place: str) -> RecordLine:
    """A line by its form; nothing is verified.

    Args:
        data: The line, with its newline.
        place: Where it stands, for messages.

    Raises:
        MalformedInputError: `record.malformed`.
    """
    if len(data) > MAX_LINE_BYTES or not data.endswith(b"\n"):
        raise MalformedInputError(
            "record.malformed",
            f"{place} is longer than {MAX_LINE_BYTES} bytes, or was cut off",
        )
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInputError("record.malformed", f"{place}: {error}") from error
