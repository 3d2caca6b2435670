# SPDX-License-Identifier: Apache-2.0
"""Messages inside the channel of a USB lease, between client and agent; nobody else reads them.

A message is one byte that tells its kind, its length in four (big-endian), and so many bytes. `DATA`, `NOTICE` and
`END` are numbered by the bytes before them, heads included, over all connections of one channel: what the other side
has not received is sent again after a connection was lost. `RESUME` opens each connection, both ways.

    kind  name    body
    1     RESUME  received, consumed: two integers of 8 bytes, big-endian
    2     DATA    1 to 65,536 bytes of the stream
    3     PING    number, received, consumed: three integers of 8 bytes
    4     PONG    number, received, consumed
    5     ACK     received, consumed
    6     NOTICE  MessagePack [code, text]
    7     END     MessagePack [code, text, summary]; the last one that is numbered
"""

import re
import struct
from dataclasses import dataclass
from typing import Final

import msgspec

from privyseal.errors import MalformedInputError

__all__ = [
    "HEAD_BYTES",
    "MAX_DATA_BYTES",
    "MAX_SUMMARY_BYTES",
    "MAX_TEXT_CHARACTERS",
    "Ack",
    "Data",
    "Decoder",
    "End",
    "Message",
    "Notice",
    "Ping",
    "Pong",
    "Progress",
    "Resume",
    "encode",
    "malformed",
]

HEAD_BYTES: Final = 5
MAX_DATA_BYTES: Final = 65_536
MAX_SUMMARY_BYTES: Final = 16_384
MAX_TEXT_CHARACTERS: Final = 1024
_MAX_NOTICE_BYTES: Final = 8192
_MAX_END_BYTES: Final = 32_768
_CODE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEAD: Final = struct.Struct(">BI")
_TWO: Final = struct.Struct(">QQ")
_THREE: Final = struct.Struct(">QQQ")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the other side is with what was numbered.

    Attributes:
        received: Bytes that have arrived there.
        consumed: Bytes of them whose room is free again.
    """

    received: int
    consumed: int


@dataclass(frozen=True, slots=True)
class Resume:
    """The first message of each side over each connection."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of the stream, at most `MAX_DATA_BYTES`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """The sender lives, and wants to know how long an answer takes."""

    number: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to the ping of that number."""

    number: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class Ack:
    """Room is free again."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to be told to whoever is at the other end, such as that others wait.

    Attributes:
        code: A stable dotted name.
        text: For people, at most `MAX_TEXT_CHARACTERS`.
    """

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class End:
    """The sender has nothing more to send.

    Attributes:
        code: Why, as a stable dotted name.
        text: The same for people, at most `MAX_TEXT_CHARACTERS`.
        summary: What the agent counted, at most `MAX_SUMMARY_BYTES`; empty from a client.
    """

    code: str
    text: str
    summary: bytes = b""


Message = Resume | Data | Ping | Pong | Ack | Notice | End

_RESUME, _DATA, _PING, _PONG, _ACK, _NOTICE, _END = range(1, 8)
#: Least and most bytes of a body.
_SIZES: Final = {
    _RESUME: (_TWO.size, _TWO.size),
    _DATA: (1, MAX_DATA_BYTES),
    _PING: (_THREE.size, _THREE.size),
    _PONG: (_THREE.size, _THREE.size),
    _ACK: (_TWO.size, _TWO.size),
    _NOTICE: (1, _MAX_NOTICE_BYTES),
    _END: (1, _MAX_END_BYTES),
}
_TEXTS: Final = msgspec.msgpack.Encoder()
_READ_NOTICE: Final = msgspec.msgpack.Decoder(tuple[str, str])
_READ_END: Final = msgspec.msgpack.Decoder(tuple[str, str, bytes])


def malformed(why: str) -> MalformedInputError:
    """The refusal of what the other side of a channel must not send."""
    return MalformedInputError("relay.malformed", f"the other side of the channel sent what it must not: {why}")


def encode(message: Message) -> bytes:
    """A message with its head.

    Raises:
        MalformedInputError: `relay.malformed` if it is longer than it may be, or its code is none.
    """
    kind, body = _body(message)
    least, most = _SIZES[kind]
    if not least <= len(body) <= most:
        raise malformed(f"{len(body)} bytes in a message of kind {kind}")
    return _HEAD.pack(kind, len(body)) + body


def _body(message: Message) -> tuple[int, bytes]:
    match message:
        case Data():
            return _DATA, message.data
        case Ping() | Pong():
            kind = _PING if isinstance(message, Ping) else _PONG
            return kind, _THREE.pack(message.number, message.progress.received, message.progress.consumed)
        case Ack() | Resume():
            kind = _ACK if isinstance(message, Ack) else _RESUME
            return kind, _TWO.pack(message.progress.received, message.progress.consumed)
        case Notice():
            _check_text(message.code, message.text)
            return _NOTICE, _TEXTS.encode((message.code, message.text))
        case End():
            _check_text(message.code, message.text, message.summary)
            return _END, _TEXTS.encode((message.code, message.text, message.summary))


def _check_text(code: str, text: str, summary: bytes = b"") -> None:
    if not _CODE.fullmatch(code) or len(text) > MAX_TEXT_CHARACTERS or len(summary) > MAX_SUMMARY_BYTES:
        raise malformed("a code that is none, or a text or summary that is too long")


class Decoder:
    """Takes bytes as they come, gives messages as they are whole; holds one unfinished message at most."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now.

        Raises:
            MalformedInputError: `relay.malformed`. Nothing more is to be fed then.
        """
        self._held += data
        found: list[Message] = []
        at, end = 0, len(self._held)
        while end - at >= HEAD_BYTES:
            kind, length = _HEAD.unpack_from(self._held, at)
            least, most = _SIZES.get(kind, (1, 0))
            if not least <= length <= most:
                raise malformed(f"kind {kind} with {length} bytes")
            if end - at - HEAD_BYTES < length:
                break
            at += HEAD_BYTES
            found.append(_message(kind, bytes(self._held[at : at + length])))
            at += length
        if at:
            del self._held[:at]
        return found


def _message(kind: int, body: bytes) -> Message:
    match kind:
        case 2:
            return Data(body)
        case 3 | 4:
            number, *counts = _THREE.unpack(body)
            return (Ping if kind == _PING else Pong)(number, Progress(*counts))
        case 5 | 1:
            progress = Progress(*_TWO.unpack(body))
            return Ack(progress) if kind == _ACK else Resume(progress)
    return _texts(kind, body)


def _texts(kind: int, body: bytes) -> Notice | End:
    try:
        message = Notice(*_READ_NOTICE.decode(body)) if kind == _NOTICE else End(*_READ_END.decode(body))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise malformed(f"no notice and no end: {error}") from error
    if encode(message)[HEAD_BYTES:] != body:
        raise malformed("another spelling of a notice or an end")
    return message
