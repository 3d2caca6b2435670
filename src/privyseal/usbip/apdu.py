# SPDX-License-Identifier: Apache-2.0
"""Commands and answers of cards (ISO/IEC 7816-4 §5), as much of them as an audit may keep.

PINs and keys travel in these bytes. Of a command its first bytes are kept, and its data only where that is a
template to be read (GENERAL AUTHENTICATE); of an answer its status and its length.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_TEMPLATE_BYTES", "AnswerTail", "Gathering", "Head", "Shape", "template_lengths"]

#: The longest authentication template that is read: RSA of 8192 bits has 1036 bytes.
MAX_TEMPLATE_BYTES: Final = 2048

#: INS of GENERAL AUTHENTICATE: its data decides what it is.
_TEMPLATE_INS: Final = (0x86, 0x87)
_HEAD_BYTES: Final = 4
#: A short command's length byte is its fifth; an extended one has 00 and two more.
_SHORT_START_BYTES: Final = 5
_EXTENDED_START_BYTES: Final = 7
_TEMPLATE_TAG: Final = 0x7C


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """CLA, INS, P1, P2 (§5.4.1). Not for output: where framing is lost these may be anything, even of a PIN."""

    cla: int
    ins: int
    p1: int
    p2: int

    @property
    def is_interindustry(self) -> bool:
        """First (0X, 1X) or further (4X to 7X) interindustry values; all others are a vendor's or reserved."""
        return self.cla < 0x20 or 0x40 <= self.cla < 0x80

    @property
    def is_chained(self) -> bool:
        """Whether more of the same command follows (§5.3.3)."""
        return self.is_interindustry and bool(self.cla & 0x10)

    @property
    def is_secured(self) -> bool:
        """Whether it has secure messaging: its data, and all of its answer but the outer status, may be enciphered."""
        return self.is_interindustry and bool(self.cla & (0x20 if self.cla & 0x40 else 0x0C))

    @property
    def channel(self) -> int:
        """The logical channel, 0 to 19."""
        return 4 + (self.cla & 0x0F) if self.cla & 0x40 else self.cla & 0x03


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One of the seven forms of a command (§5.2).

    Attributes:
        case: 1 neither data nor Le, 2 Le alone, 3 data alone, 4 both.
        data_at: Where the data begins.
        data_bytes: Lc; 0 in the cases 1 and 2.
    """

    case: int
    is_extended: bool
    data_at: int
    data_bytes: int


class Gathering:
    """One command as its bytes come, in one part or in many."""

    __slots__ = ("_kept", "length")

    def __init__(self, part: bytes = b"") -> None:
        self._kept = bytearray()
        #: How many bytes came, kept or not.
        self.length = 0
        self.add(part)

    def add(self, part: bytes) -> None:
        """Take the next part; what may be a secret is forgotten at once."""
        room = _EXTENDED_START_BYTES + MAX_TEMPLATE_BYTES - len(self._kept)
        self._kept += part[:room]
        self.length += len(part)
        if len(self._kept) >= 2 and self._kept[1] not in _TEMPLATE_INS:
            is_short = len(self._kept) >= _SHORT_START_BYTES and self._kept[_HEAD_BYTES] != 0
            del self._kept[_SHORT_START_BYTES if is_short else _EXTENDED_START_BYTES :]

    def with_part(self, part: bytes) -> "Gathering":
        """Another one, that has this part too."""
        other = Gathering(bytes(self._kept))
        other.length = self.length
        other.add(part)
        return other

    @property
    def head(self) -> Head | None:
        """None until its four bytes are there."""
        if len(self._kept) < _HEAD_BYTES:
            return None
        cla, ins, p1, p2 = self._kept[:_HEAD_BYTES]
        return Head(cla=cla, ins=ins, p1=p1, p2=p2)

    @property
    def shape(self) -> Shape | None:
        """Of a whole command; None if its lengths do not fit."""
        body = self.length - _HEAD_BYTES
        if body < 0:
            return None
        if body < 2:
            return Shape(case=1 + body, is_extended=False, data_at=_SHORT_START_BYTES, data_bytes=0)
        is_extended = self._kept[_HEAD_BYTES] == 0
        start = _EXTENDED_START_BYTES if is_extended else _SHORT_START_BYTES
        data_bytes = int.from_bytes(self._kept[_HEAD_BYTES:start], "big")
        rest = self.length - start - data_bytes
        if is_extended and self.length == start:
            return Shape(case=2, is_extended=True, data_at=start, data_bytes=0)
        if data_bytes == 0 or rest not in (0, 2 if is_extended else 1):
            return None
        return Shape(case=4 if rest else 3, is_extended=is_extended, data_at=start, data_bytes=data_bytes)

    @property
    def has_data(self) -> bool:
        """Whether there is anything beyond header and Le, well formed or not."""
        shape = self.shape
        return self.length > _SHORT_START_BYTES if shape is None else shape.data_bytes > 0

    @property
    def template(self) -> bytes | None:
        """The data of a whole command, where it is kept."""
        shape = self.shape
        if shape is None:
            return None
        data = bytes(self._kept[shape.data_at : shape.data_at + shape.data_bytes])
        return data if len(data) == shape.data_bytes else None


class AnswerTail:
    """One answer as its bytes come: the status at its end and how much data was before it."""

    __slots__ = ("_last", "length")

    def __init__(self) -> None:
        self._last = b""
        self.length = 0

    def add(self, part: bytes) -> None:
        """Take the next part."""
        self._last = (self._last + part[-2:])[-2:]
        self.length += len(part)

    @property
    def status(self) -> int | None:
        """SW1 and SW2; None while there are none."""
        return int.from_bytes(self._last, "big") if self.length >= 2 else None

    @property
    def data_bytes(self) -> int:
        """How much came before the status."""
        return max(0, self.length - 2)


def template_lengths(data: bytes) -> dict[int, int] | None:
    """How long each data object in a dynamic authentication template is (7C, §7.5.3); None if it is not one."""
    outer = _object(data, 0)
    if outer is None or outer[0] != _TEMPLATE_TAG or outer[2] != len(data):
        return None
    lengths: dict[int, int] = {}
    at = outer[1]
    while at < len(data):
        found = _object(data, at)
        if found is None or found[0] in lengths:
            return None
        tag, begin, at = found
        lengths[tag] = at - begin
    return lengths


def _object(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Tag of one byte, and where the value begins and ends."""
    if at + 2 > len(data):
        return None
    tag, first, begin = data[at], data[at + 1], at + 2
    length = first
    if first >= 0x80:
        begin += first & 0x7F
        length = int.from_bytes(data[at + 2 : begin], "big")
    if first in (0x81, 0x82) or first < 0x80:
        return (tag, begin, begin + length) if begin + length <= len(data) and tag & 0x1F != 0x1F else None
    return None
