# SPDX-License-Identifier: Apache-2.0
"""The exporter's side of one USB/IP connection, without input or output.

A connection is either a question which devices there are, or the import of one device and its URBs until the end.
"""

import errno
from dataclasses import dataclass
from enum import Enum
from typing import Final

from privyseal.usbip.framing import Frames
from privyseal.usbip.urb import (
    HEADER_BYTES,
    MAX_TRANSFER_BYTES,
    Answer,
    CmdSubmit,
    CmdUnlink,
    Command,
    Direction,
    RetSubmit,
    RetUnlink,
    command_frames,
)
from privyseal.usbip.wire import (
    DeviceRecord,
    DevlistAnswer,
    DevlistRequest,
    ImportAnswer,
    ImportRequest,
    ListedDevice,
    OpStatus,
    malformed,
    read_request,
)

__all__ = ["Cancel", "Event", "Exporting", "Limits", "Stage"]

#: What a device's host controller says of an URB that it gave up because it was asked to.
_CANCELLED: Final = frozenset({-errno.ENOENT, -errno.ECONNRESET})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may ask for; what is more is refused.

    Attributes:
        transfer_bytes: Buffer of one URB; a larger one ends the connection.
        urbs: How many may be in flight; one more is answered with -ENOMEM.
        bytes_in_flight: Their buffers together; likewise.
    """

    transfer_bytes: int = MAX_TRANSFER_BYTES
    urbs: int = 128
    bytes_in_flight: int = 4 * MAX_TRANSFER_BYTES


class Stage(Enum):
    """Where a connection is."""

    ASKED_NOTHING = "the client has not asked for anything yet"
    DECIDING = "a request waits for its answer"
    IMPORTED = "URBs"
    ENDED = "nothing is read any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """An URB in flight is to be given up: `complete` it as the device does, cancelled or done."""

    seqnum: int


Event = DevlistRequest | ImportRequest | CmdSubmit | Cancel


@dataclass(slots=True, kw_only=True)
class _Pending:
    """An URB in flight; `unlink` is the seqnum of the CmdUnlink that is out for it."""

    direction: Direction
    length: int
    unlink: int | None = None


class Exporting:
    """Feed it what arrives, take events until there is none, answer them, send what `output` gives.

    Args:
        limits: Of this connection.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._stage = Stage.ASKED_NOTHING
        self._asked: DevlistRequest | ImportRequest | None = None
        self._requests = Frames(read_request)
        self._commands: Frames[Command] = command_frames(max_transfer_bytes=self._limits.transfer_bytes)
        self._device_id = 0
        self._pending: dict[int, _Pending] = {}
        self._unlinks: set[int] = set()
        self._pending_bytes = 0
        self._output = bytearray()

    @property
    def stage(self) -> Stage:
        """Where it is."""
        return self._stage

    @property
    def in_flight(self) -> tuple[int, ...]:
        """Seqnums of the URBs that are not answered."""
        return tuple(self._pending)

    @property
    def is_between(self) -> bool:
        """Whether the stream could end here without cutting anything off."""
        return self._requests.is_between and self._commands.is_between and not self._pending

    def unlink_of(self, seqnum: int) -> int | None:
        """Seqnum of the CmdUnlink that is out for an URB in flight."""
        pending = self._pending.get(seqnum)
        return pending.unlink if pending is not None else None

    def feed(self, data: bytes) -> None:
        """Add what arrived.

        Raises:
            MalformedInputError: `usbip.malformed` if the client sends on and on while its request is decided.
        """
        if self._stage is Stage.ENDED:
            return
        waits = self._stage is Stage.DECIDING
        if waits and self._requests.held_bytes + len(data) > self._limits.transfer_bytes + HEADER_BYTES:
            self._stage = Stage.ENDED
            raise malformed("the client sends URBs before its import is answered")
        (self._commands if self._stage is Stage.IMPORTED else self._requests).feed(data)

    def take(self) -> Event | None:
        """What happens next; None until more is fed, or until the request is answered.

        Raises:
            MalformedInputError: `usbip.malformed`, `usbip.too_large`.
            UnsupportedInputError: `usbip.version`, `usbip.request`, `usbip.isochronous`. After an error the stage is
                ENDED; URBs in flight can still be completed.
        """
        try:
            if self._stage is Stage.ASKED_NOTHING:
                return self._take_request()
            while self._stage is Stage.IMPORTED and (command := self._commands.take()) is not None:
                event = self._judge(command)
                if event is not None:
                    return event
        except BaseException:
            self._stage = Stage.ENDED
            raise
        return None

    def show(self, devices: tuple[ListedDevice, ...]) -> None:
        """Answer a DevlistRequest; that ends the connection."""
        self._answer_request(DevlistRequest, DevlistAnswer(devices=devices), Stage.ENDED)

    def accept(self, device: DeviceRecord) -> None:
        """Answer an ImportRequest with its device; URBs follow."""
        self._answer_request(ImportRequest, ImportAnswer(device=device), Stage.IMPORTED)
        self._device_id = device.device_id
        self._commands.feed(self._requests.rest())

    def refuse(self, status: OpStatus) -> None:
        """Answer any request with a refusal; that ends the connection."""
        answer = ImportAnswer if isinstance(self._asked, ImportRequest) else DevlistAnswer
        self._answer_request(type(self._asked), answer(status=status), Stage.ENDED)

    def complete(self, seqnum: int, status: int, *, data: bytes = b"", actual_length: int | None = None) -> Answer:
        """An URB is done: how it is answered, which is in the output, too.

        If it was cancelled on the client's wish, that is the answer to the CmdUnlink alone; if it was done all the
        same, its answer comes first and the CmdUnlink's says so.

        Args:
            seqnum: Of an URB in flight.
            status: 0 or a negative errno, as the device's host has it.
            data: What came in.
            actual_length: How much went out; that of the data if data came in.

        Raises:
            ValueError: It is not in flight, or more came in than fits.
        """
        pending = self._pending.get(seqnum)
        if pending is None:
            raise ValueError(f"URB {seqnum} is not in flight")
        length = len(data) if actual_length is None else actual_length
        if length > pending.length or (data and len(data) != length):
            raise ValueError(f"{length} bytes for URB {seqnum}, whose buffer has {pending.length}")
        del self._pending[seqnum]
        self._pending_bytes -= pending.length
        answer: Answer = RetSubmit(seqnum=seqnum, status=status, actual_length=length, data=data)
        if pending.unlink is not None:
            self._unlinks.discard(pending.unlink)
            if status in _CANCELLED:
                answer = RetUnlink(seqnum=pending.unlink, status=-errno.ECONNRESET)
            else:
                self._output += answer.encode()
                self._output += RetUnlink(seqnum=pending.unlink, status=0).encode()
                return answer
        self._output += answer.encode()
        return answer

    def abandon(self, status: int = -errno.ESHUTDOWN) -> None:
        """Answer all that is in flight, and read nothing any more."""
        self._stage = Stage.ENDED
        for seqnum, pending in tuple(self._pending.items()):
            self.complete(seqnum, status if pending.unlink is None else -errno.ENOENT)

    @property
    def output_bytes(self) -> int:
        """How much waits to be sent."""
        return len(self._output)

    def output(self) -> bytes:
        """What is to be sent, in order; each byte is given once."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def _take_request(self) -> Event | None:
        self._asked = self._requests.take()
        if self._asked is not None:
            self._stage = Stage.DECIDING
        return self._asked

    def _answer_request(self, asked: type, answer: DevlistAnswer | ImportAnswer, then: Stage) -> None:
        if self._stage is not Stage.DECIDING or type(self._asked) is not asked:
            raise ValueError("no such request waits for an answer")
        self._output += answer.encode()
        self._stage = then

    def _judge(self, command: Command) -> Event | None:
        """The event that a command is; None if it is answered already."""
        if command.device_id != self._device_id:
            raise malformed(f"URB {command.seqnum} is for device {command.device_id:#x}, which is not imported")
        if command.seqnum in self._pending or command.seqnum in self._unlinks:
            raise malformed(f"the seqnum {command.seqnum} is in use twice")
        return self._unlink(command) if isinstance(command, CmdUnlink) else self._submit(command)

    def _submit(self, command: CmdSubmit) -> Event | None:
        is_too_many = len(self._pending) >= self._limits.urbs
        if is_too_many or self._pending_bytes + command.length > self._limits.bytes_in_flight:
            self._output += RetSubmit(seqnum=command.seqnum, status=-errno.ENOMEM, actual_length=0).encode()
            return None
        self._pending[command.seqnum] = _Pending(direction=command.direction, length=command.length)
        self._pending_bytes += command.length
        return command

    def _unlink(self, command: CmdUnlink) -> Event | None:
        pending = self._pending.get(command.target)
        if pending is None:
            self._output += RetUnlink(seqnum=command.seqnum, status=0).encode()
            return None
        if pending.unlink is not None:
            raise malformed(f"URB {command.target} is unlinked twice")
        pending.unlink = command.seqnum
        self._unlinks.add(command.seqnum)
        return Cancel(seqnum=command.target)
