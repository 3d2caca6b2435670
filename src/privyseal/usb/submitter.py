# SPDX-License-Identifier: Apache-2.0
"""Between the URBs of a client and a held device: each is seen by the tap, submitted, counted, and answered once."""

import asyncio
import contextlib
import errno
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from privyseal.errors import UsbError
from privyseal.usb.injection import Injections
from privyseal.usb.ports import Done, HeldPort, Transfer
from privyseal.usb.statistics import SessionStatistics
from privyseal.usb.tap import SessionEnd, TapAnswer, UrbTap
from privyseal.usbip.descriptors import Descriptors, EndpointDescriptor, EndpointKind
from privyseal.usbip.exporting import Cancel, Event, Exporting
from privyseal.usbip.urb import Answer, CmdSubmit, Direction, RetSubmit, RetUnlink

__all__ = ["Submitter"]

_SETUP: Final = struct.Struct("<BBHHH")
_SHORT_NOT_OK: Final = 0x01
_ZERO_PACKET: Final = 0x40
_STATUS_MOST: Final = 4095
_CANCELLED: Final = (-errno.ENOENT, -errno.ECONNRESET)

# Requests that the kernel of the exporting host must know of (bmRequestType, bRequest; USB 2.0, section 9.4).
_SET_ADDRESS: Final = (0x00, 0x05)
_SET_CONFIGURATION: Final = (0x00, 0x09)
_SET_INTERFACE: Final = (0x01, 0x0B)
_CLEAR_ENDPOINT_FEATURE: Final = (0x02, 0x01)
_ENDPOINT_HALT: Final = 0


@dataclass(slots=True, kw_only=True)
class _InFlight:
    command: CmdSubmit
    kind: EndpointKind
    begun_ns: int


class Submitter:
    """The URBs of one session.

    Args:
        machine: The session's protocol.
        port: The device.
        descriptors: What it says of itself.
        configuration_value: The configuration that is set, and stays.
        tap: Sees what passes.
        statistics: Counts it.
    """

    def __init__(
        self,
        machine: Exporting,
        port: HeldPort,
        descriptors: Descriptors,
        configuration_value: int,
        *,
        tap: UrbTap | None,
        statistics: SessionStatistics,
    ) -> None:
        self.port = port
        self._machine = machine
        self._configuration = descriptors.configuration(configuration_value)
        self._configuration_value = configuration_value
        self._alternates: dict[int, int] = {}
        self._endpoints: dict[int, EndpointDescriptor] = self._endpoints_now()
        self._tap = tap
        self._statistics = statistics
        self._in_flight: dict[int, _InFlight] = {}
        self._injections = Injections()
        #: Transfers that were given up so that the tap's answer is read.
        self._replaced: set[int] = set()
        #: Transfers of our own, at the end.
        self._own: dict[int, Callable[[Done], None]] = {}
        self._is_stopped = False
        self._is_empty = asyncio.Event()

    def handle(self, event: Event) -> Awaitable[None] | None:
        """What the client wants; something to await if it takes long, before the next is handled.

        Raises:
            SessionEnd: The tap wants the session to end.
        """
        if isinstance(event, Cancel):
            if event.seqnum in self._in_flight:
                self.port.cancel(event.seqnum)
            return None
        if not isinstance(event, CmdSubmit):
            raise TypeError("requests come before URBs")
        self._statistics.urbs += 1
        kind = self._kind(event)
        self._in_flight[event.seqnum] = _InFlight(
            command=event, kind=kind or EndpointKind.BULK, begun_ns=time.monotonic_ns()
        )
        try:
            if self._answer_by_tap(event):
                return None
        except BaseException:  # the session ends, and the machine answers what nobody else has
            self._in_flight.pop(event.seqnum, None)
            raise
        if kind is None or kind is EndpointKind.ISOCHRONOUS:
            self._answer(Done(tag=event.seqnum, status=-errno.ENOENT if kind is None else -errno.EINVAL))
            return None
        if kind is EndpointKind.CONTROL:
            return self._control(event)
        self._submit(event, kind)
        return None

    def done(self, done: Done) -> None:
        """The device is done with a transfer.

        Raises:
            SessionEnd: The tap wants the session to end.
        """
        own = self._own.pop(done.tag, None)
        if own is not None:
            own(done)
        elif done.tag in self._in_flight:
            address = self._in_flight[done.tag].command.address
            self._replace(done, address) if done.tag in self._replaced else self._answer(done)
            self._make_room(address)

    async def stop(self, seconds: float) -> None:
        """Give up what is in flight, and answer all of it; the device has so long to let go."""
        self._is_stopped = True
        for seqnum in tuple(self._in_flight):
            self.port.cancel(seqnum)
        if self._in_flight and seconds:
            self._is_empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_empty.wait()
        for seqnum in tuple(self._in_flight):
            with contextlib.suppress(Exception):  # the session ends; what its tap says of that is heard no more
                self._answer(Done(tag=seqnum, status=-errno.ESHUTDOWN))
        self._machine.abandon()

    async def transfer(self, transfer: Transfer) -> Done:
        """A transfer of our own, after `stop`; cancelled when this is.

        Raises:
            OSError: It was refused.
        """
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._own[transfer.tag] = lambda done: None if future.done() else future.set_result(done)
        try:
            self.port.submit(transfer)
            return await future
        except asyncio.CancelledError:
            self.port.cancel(transfer.tag)
            raise
        finally:
            self._own.pop(transfer.tag, None)

    def _kind(self, command: CmdSubmit) -> EndpointKind | None:
        if command.endpoint == 0:
            return EndpointKind.CONTROL
        endpoint = self._endpoints.get(command.address)
        return endpoint.kind if endpoint is not None else None

    def _submit(self, command: CmdSubmit, kind: EndpointKind) -> None:
        transfer = Transfer(
            tag=command.seqnum,
            address=command.address,
            kind=kind,
            length=command.length,
            data=command.data,
            setup=command.setup,
            is_short_an_error=bool(command.transfer_flags & _SHORT_NOT_OK),
            ends_with_empty_packet=bool(command.transfer_flags & _ZERO_PACKET),
        )
        try:
            self.port.submit(transfer)
        except OSError as error:
            self._answer(Done(tag=command.seqnum, status=-(error.errno or errno.EIO)))

    def _control(self, command: CmdSubmit) -> Awaitable[None] | None:
        kind, request, value, index, length = _SETUP.unpack(command.setup)
        way = Direction.IN if kind & 0x80 else Direction.OUT
        if length > command.length or (length and way is not command.direction):
            self._answer(Done(tag=command.seqnum, status=-errno.EINVAL))
            return None
        match (kind, request):
            case code if code == _SET_ADDRESS:
                self._answer(Done(tag=command.seqnum, status=-errno.EPIPE))
            case code if code == _SET_CONFIGURATION:
                # It is set, and all that is configured would be lost; 0 is what a host says as it lets go.
                is_as_it_is = value in (0, self._configuration_value)
                self._answer(Done(tag=command.seqnum, status=0 if is_as_it_is else -errno.EPIPE))
            case code if code == _SET_INTERFACE:
                return self._slow(command, self._set_interface(index, value))
            case code if code == _CLEAR_ENDPOINT_FEATURE and value == _ENDPOINT_HALT and index & 0x0F:
                return self._slow(command, self.port.clear_halt(index & 0x8F))
            case _:
                self._submit(command, EndpointKind.CONTROL)
        return None

    async def _set_interface(self, number: int, alternate: int) -> None:
        await self.port.set_interface(number, alternate)
        self._alternates[number] = alternate
        self._endpoints = self._endpoints_now()

    async def _slow(self, command: CmdSubmit, work: Awaitable[None]) -> None:
        status = 0
        try:
            await work
        except OSError as error:
            status = -(error.errno or errno.EIO)
        except UsbError as error:
            raise SessionEnd(str(error)) from error
        if command.seqnum in self._in_flight:
            self._answer(Done(tag=command.seqnum, status=status))

    def _endpoints_now(self) -> dict[int, EndpointDescriptor]:
        return self._configuration.endpoints(self._alternates) if self._configuration is not None else {}

    def _answer_by_tap(self, command: CmdSubmit) -> bool:
        """Whether the tap has answered; ValueError if its answer does not fit."""
        answered = self._tap.before(command) if self._tap is not None else None
        is_in = command.direction is Direction.IN
        if answered is None and is_in and self._injections.has(command.address):
            answered = TapAnswer(status=0, data=self._injections.take(command.address, command.length))
        if answered is None:
            return False
        if not -_STATUS_MOST <= answered.status <= 0 or len(answered.data) > (command.length if is_in else 0):
            raise ValueError(f"the tap's answer to URB {command.seqnum} does not fit")
        length = len(answered.data) if is_in else command.length if answered.status == 0 else 0
        self._statistics.answered_by_tap += 1
        self._answer(
            Done(tag=command.seqnum, status=answered.status, actual_length=length, data=answered.data), is_own=True
        )
        if answered.read_next:
            self._injections.add(answered.read_next_address, answered.read_next)
            self._make_room(answered.read_next_address)
        return True

    def _make_room(self, address: int) -> None:
        """If something of the tap's is to be read, have the device give up the transfer that waits for its data."""
        if not self._injections.has(address):
            return
        waiting = (tag for tag, urb in self._in_flight.items() if urb.command.address == address)
        tag = next((tag for tag in waiting if self._machine.unlink_of(tag) is None), None)
        if tag is not None and tag not in self._replaced:
            self._replaced.add(tag)
            self.port.cancel(tag)

    def _replace(self, done: Done, address: int) -> None:
        """Answer a transfer that was given up for the tap's: with that, or with what the device had said already."""
        self._replaced.discard(done.tag)
        is_given_up = done.status in _CANCELLED and not self._is_stopped
        if is_given_up and done.data:
            self._answer(Done(tag=done.tag, status=0, actual_length=len(done.data), data=done.data))
        elif is_given_up and self._injections.has(address):
            data = self._injections.take(address, self._in_flight[done.tag].command.length)
            self._answer(Done(tag=done.tag, status=0, actual_length=len(data), data=data), is_own=True)
        else:
            self._answer(done)

    def _answer(self, done: Done, *, is_own: bool = False) -> None:
        """Answer an URB; if the tap refuses that, or errs, with -ESHUTDOWN and nothing that came in."""
        urb = self._in_flight.pop(done.tag)
        if not self._in_flight:
            self._is_empty.set()
        command = urb.command
        is_in = command.direction is Direction.IN
        answer: Answer = RetSubmit(
            seqnum=done.tag, status=done.status, actual_length=done.actual_length, data=done.data if is_in else b""
        )
        unlink = self._machine.unlink_of(done.tag)
        if unlink is not None and done.status in _CANCELLED:
            answer = RetUnlink(seqnum=unlink, status=-errno.ECONNRESET)
        self._count(urb, answer, is_own=is_own)
        try:
            if self._tap is not None:
                self._tap.after(command, answer, is_own=is_own)
        except BaseException as error:
            if isinstance(error, SessionEnd) and error.with_answer:
                self._complete(answer, done)
            else:
                self._machine.complete(done.tag, -errno.ESHUTDOWN)
            raise
        self._complete(answer, done)

    def _complete(self, answer: Answer, done: Done) -> None:
        if isinstance(answer, RetUnlink):
            self._machine.complete(done.tag, -errno.ECONNRESET)
            return
        status = -errno.ESHUTDOWN if self._is_stopped and done.status == -errno.ENOENT else done.status
        self._machine.complete(done.tag, status, data=answer.data, actual_length=answer.actual_length)

    def _count(self, urb: _InFlight, answer: Answer, *, is_own: bool) -> None:
        counted = self._statistics
        if isinstance(answer, RetUnlink):
            counted.cancelled += 1
            return
        if answer.status:
            counted.errors += 1
        if urb.command.direction is Direction.IN:
            counted.bytes_in += answer.actual_length
        else:
            counted.bytes_out += answer.actual_length
        if answer.status == 0 and urb.kind is not EndpointKind.INTERRUPT and not is_own:
            counted.round_trips.add((time.monotonic_ns() - urb.begun_ns) // 1000)
