# SPDX-License-Identifier: Apache-2.0
"""URBs on the wire (USB/IP 1.1.1): what a client submits and cancels, and what comes back.

Isochronous transfers are refused: no token has any. Layouts: Documentation/usb/usbip_protocol.rst of Linux.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from privyseal.errors import MalformedInputError, UnsupportedInputError
from privyseal.usbip.framing import Frames, Parts
from privyseal.usbip.wire import malformed

__all__ = [
    "HEADER_BYTES",
    "MAX_TRANSFER_BYTES",
    "NO_SETUP",
    "Answer",
    "CmdSubmit",
    "CmdUnlink",
    "Command",
    "Direction",
    "Expected",
    "RetSubmit",
    "RetUnlink",
    "answer_frames",
    "command_frames",
]

HEADER_BYTES: Final = 48
#: Largest buffer of one URB. Linux's drivers ask for 64 KiB of a reader and for 1 MiB of a disk.
MAX_TRANSFER_BYTES: Final = 1 << 20
NO_SETUP: Final = bytes(8)

_CMD_SUBMIT, _CMD_UNLINK, _RET_SUBMIT, _RET_UNLINK = 1, 2, 3, 4
_BASIC: Final = struct.Struct(">IIIII")
_SUBMIT: Final = struct.Struct(">Iiiii8s")
_UNLINK: Final = struct.Struct(">I24x")
_SUBMITTED: Final = struct.Struct(">iiiii8x")
_UNLINKED: Final = struct.Struct(">i24x")
#: Number of packets of a transfer that is not isochronous: as the protocol's text has it, and as Linux sends it.
_NOT_ISOCHRONOUS: Final = (-1, 0)
_MAX_ENDPOINT: Final = 15


class Direction(IntEnum):
    """Which way the data of an URB goes, as the host sees it."""

    OUT = 0
    IN = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CmdSubmit:
    """An URB that a client submits.

    Attributes:
        seqnum: Names it until it is answered.
        device_id: Of the imported device.
        direction: Way of the data.
        endpoint: 0 to 15, without the direction.
        length: Size of the buffer: how much goes out, or may come in.
        data: What goes out, `length` bytes; empty if data comes in.
        setup: The set-up packet of a control transfer; zeros otherwise.
        transfer_flags: As the client's kernel has them (`URB_*`).
        interval: Of interrupt transfers, in frames.
    """

    seqnum: int
    device_id: int
    direction: Direction
    endpoint: int
    length: int
    data: bytes = b""
    setup: bytes = NO_SETUP
    transfer_flags: int = 0
    interval: int = 0

    @property
    def address(self) -> int:
        """The endpoint as descriptors name it: 0x80 and more for IN."""
        return self.endpoint | (0x80 if self.direction is Direction.IN else 0)

    def encode(self) -> bytes:
        """USBIP_CMD_SUBMIT.

        Raises:
            ValueError: The data is not as long as the buffer.
        """
        if len(self.data) != (self.length if self.direction is Direction.OUT else 0):
            raise ValueError(f"{len(self.data)} bytes of data {self.direction.name} in a buffer of {self.length}")
        basic = _BASIC.pack(_CMD_SUBMIT, self.seqnum, self.device_id, self.direction, self.endpoint)
        return basic + _SUBMIT.pack(self.transfer_flags, self.length, 0, 0, self.interval, self.setup) + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class CmdUnlink:
    """A client does not want an URB any more.

    Attributes:
        seqnum: Of this command.
        target: Seqnum of the URB.
    """

    seqnum: int
    device_id: int
    target: int

    def encode(self) -> bytes:
        """USBIP_CMD_UNLINK."""
        return _BASIC.pack(_CMD_UNLINK, self.seqnum, self.device_id, 0, 0) + _UNLINK.pack(self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetSubmit:
    """An URB is done.

    Attributes:
        status: 0, or a negative errno.
        actual_length: How much went out or came in.
        data: What came in, `actual_length` bytes; empty if data went out.
    """

    seqnum: int
    status: int
    actual_length: int
    data: bytes = b""

    def encode(self) -> bytes:
        """USBIP_RET_SUBMIT; device, direction and endpoint are 0, as Linux has them."""
        basic = _BASIC.pack(_RET_SUBMIT, self.seqnum, 0, 0, 0)
        return basic + _SUBMITTED.pack(self.status, self.actual_length, 0, 0, 0) + self.data


@dataclass(frozen=True, slots=True, kw_only=True)
class RetUnlink:
    """What became of a CmdUnlink.

    Attributes:
        seqnum: Of the CmdUnlink.
        status: -ECONNRESET if the URB was cancelled and gets no other answer; 0 if it was done before.
    """

    seqnum: int
    status: int

    def encode(self) -> bytes:
        """USBIP_RET_UNLINK."""
        return _BASIC.pack(_RET_UNLINK, self.seqnum, 0, 0, 0) + _UNLINKED.pack(self.status)


Command = CmdSubmit | CmdUnlink
Answer = RetSubmit | RetUnlink


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the answer to a submitted URB may carry.

    Attributes:
        direction: As it was submitted.
        length: Size of its buffer.
    """

    direction: Direction
    length: int


def command_frames(*, max_transfer_bytes: int = MAX_TRANSFER_BYTES) -> Frames[Command]:
    """Reads a client's commands.

    `take` raises MalformedInputError (`usbip.malformed`, `usbip.too_large`) and UnsupportedInputError
    (`usbip.isochronous`).
    """
    return Frames(lambda: _read_command(max_transfer_bytes))


def answer_frames(expected: Callable[[int], Expected | None]) -> Frames[Answer]:
    """Reads an exporter's answers.

    `take` raises MalformedInputError (`usbip.malformed`).

    Args:
        expected: What was submitted by this seqnum; None if nothing was. Only so does an answer's end show.
    """
    return Frames(lambda: _read_answer(expected))


def _read_command(max_transfer_bytes: int) -> Parts[Command]:
    header = yield HEADER_BYTES
    command, seqnum, device_id, way, endpoint = _BASIC.unpack_from(header)
    if command == _CMD_UNLINK:
        (target,) = _UNLINK.unpack_from(header, _BASIC.size)
        return CmdUnlink(seqnum=seqnum, device_id=device_id, target=target)
    if command != _CMD_SUBMIT:
        raise malformed(f"the command {command:#x}, which no client sends")
    if way > Direction.IN or endpoint > _MAX_ENDPOINT:
        raise malformed(f"URB {seqnum} goes to endpoint {endpoint} in direction {way}")
    flags, length, _, packets, interval, setup = _SUBMIT.unpack_from(header, _BASIC.size)
    _check_transfer(seqnum, length, packets, max_transfer_bytes)
    direction = Direction(way)
    return CmdSubmit(
        seqnum=seqnum,
        device_id=device_id,
        direction=direction,
        endpoint=endpoint,
        length=length,
        data=(yield length) if direction is Direction.OUT and length else b"",
        setup=setup,
        transfer_flags=flags,
        interval=interval,
    )


def _check_transfer(seqnum: int, length: int, packets: int, max_transfer_bytes: int) -> None:
    if packets not in _NOT_ISOCHRONOUS:
        raise UnsupportedInputError(
            "usbip.isochronous",
            f"URB {seqnum} is isochronous ({packets} packets)",
            hint="audio and video devices cannot be shared; export the token alone",
        )
    if length < 0:
        raise malformed(f"URB {seqnum} has a buffer of {length} bytes")
    if length > max_transfer_bytes:
        raise MalformedInputError(
            "usbip.too_large",
            f"URB {seqnum} has a buffer of {length} bytes; {max_transfer_bytes} are the most",
            hint="look which program on the importing host asks for so much at once",
        )


def _read_answer(expected: Callable[[int], Expected | None]) -> Parts[Answer]:
    header = yield HEADER_BYTES
    command, seqnum, *_ = _BASIC.unpack_from(header)
    if command == _RET_UNLINK:
        (status,) = _UNLINKED.unpack_from(header, _BASIC.size)
        return RetUnlink(seqnum=seqnum, status=status)
    if command != _RET_SUBMIT:
        raise malformed(f"the command {command:#x}, which no exporter sends")
    urb = expected(seqnum)
    if urb is None:
        raise malformed(f"an answer to URB {seqnum}, which was not submitted")
    status, actual_length, _, packets, _ = _SUBMITTED.unpack_from(header, _BASIC.size)
    if not 0 <= actual_length <= urb.length or packets not in _NOT_ISOCHRONOUS:
        raise malformed(f"an answer of {actual_length} bytes to URB {seqnum}, whose buffer has {urb.length}")
    return RetSubmit(
        seqnum=seqnum,
        status=status,
        actual_length=actual_length,
        data=(yield actual_length) if urb.direction is Direction.IN and actual_length else b"",
    )
