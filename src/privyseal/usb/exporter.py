# SPDX-License-Identifier: Apache-2.0
"""The export of one device over one stream: from the client's request until the device is given back.

The device is held when the client imports it. At the end, however it comes, what is in flight is answered, the cards
of a reader are switched off, the device is reset, and only then is it this host's again.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from privyseal.errors import MalformedInputError, PrivysealError, UnsupportedInputError, UsbError
from privyseal.usb.card_power import readers
from privyseal.usb.ending import switch_cards_off
from privyseal.usb.ports import Done, ExportableDevice, HeldPort
from privyseal.usb.statistics import SessionStatistics
from privyseal.usb.streams import ByteStream
from privyseal.usb.submitter import Submitter
from privyseal.usb.tap import SessionEnd, UrbTap
from privyseal.usbip.exporting import Event, Exporting, Limits, Stage
from privyseal.usbip.wire import DevlistRequest, ImportRequest, OpStatus

__all__ = ["Deadlines", "EndedBy", "Exporter", "SessionReport"]

#: The client's next command is read once less than this waits to be sent to it.
_UNSENT_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long the parts of an export may take, in seconds.

    Attributes:
        request: Until the client has said what it wants.
        write: Until a client takes what is sent to it.
        cancel: Until the device has given up what is in flight at the end.
        power_off: For the cards of a reader, together.
    """

    request: float = 10.0
    write: float = 30.0
    cancel: float = 2.0
    power_off: float = 3.0


class EndedBy(StrEnum):
    """Whose doing the end of an export was."""

    CLIENT = "client"
    CLIENT_ERROR = "client-error"
    CLIENT_STALLED = "client-stalled"
    NOT_HELD = "not-held"
    DEVICE_GONE = "device-gone"
    TAP = "tap"
    US = "us"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """How an export went.

    Attributes:
        ended_by: Whose doing its end was.
        reason: In words; a tap's or caller's own if it was theirs.
        was_imported: Whether the device was held at all.
        was_powered_off: Whether all cards of a reader said so at the end; None if it is no reader.
        was_reset: Whether the device was reset and given back as it should; an unplugged one was not.
        give_back_error: Why not, if it is to be told.
        statistics: What passed.
    """

    ended_by: EndedBy
    reason: str
    was_imported: bool
    was_powered_off: bool | None
    was_reset: bool
    give_back_error: PrivysealError | OSError | None
    statistics: SessionStatistics


class _EndError(Exception):
    """The session ends."""

    def __init__(self, ended_by: EndedBy, reason: str) -> None:
        super().__init__(reason)
        self.ended_by, self.reason = ended_by, reason


class Exporter:
    """One export; made for one stream, and served once.

    Args:
        device: What is exported.
        tap: Sees the URBs; None if nobody does.
        limits: Of what the client may ask for.
        deadlines: Of the parts of the session.
    """

    def __init__(
        self,
        device: ExportableDevice,
        *,
        tap: UrbTap | None = None,
        limits: Limits | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        self._device = device
        self._tap = tap
        self._deadlines = deadlines or Deadlines()
        self._machine = Exporting(limits)
        self._submitter: Submitter | None = None
        self._over: asyncio.Future[_EndError] = asyncio.get_running_loop().create_future()
        self._has_output = asyncio.Event()
        self._was_sent = asyncio.Event()
        self._unsent_bytes = 0
        self.statistics = SessionStatistics()

    def end(self, reason: str) -> None:
        """End the export, as at the end of a lease; `serve` returns soon after."""
        self._end(EndedBy.US, reason)

    async def serve(self, stream: ByteStream) -> SessionReport:
        """Serve the client at this stream until the end, and give the device back. Closes the stream.

        It never raises for what the client, the device, the tap or the kernel do: the report tells it. If it is
        cancelled, it gives the device back first.
        """
        tasks = [asyncio.create_task(self._read(stream)), asyncio.create_task(self._write(stream))]
        for task in tasks:
            task.add_done_callback(self._note)
        try:
            await asyncio.shield(self._over)
        except asyncio.CancelledError:
            self.end("the exporter was stopped")
            await _in_spite_of_cancelling(self._finish(tasks[0], tasks[1], stream))
            raise
        return await _in_spite_of_cancelling(self._finish(tasks[0], tasks[1], stream))

    def _end(self, ended_by: EndedBy, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(_EndError(ended_by, reason))

    def _note(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        match error:
            case None:
                self._end(EndedBy.CLIENT, "the client ended the connection")
            case _EndError():
                self._end(error.ended_by, error.reason)
            case SessionEnd():
                self._end(EndedBy.TAP, error.reason)
            case MalformedInputError() | UnsupportedInputError():
                self._end(EndedBy.CLIENT_ERROR, str(error))
            case OSError():
                self._end(EndedBy.CLIENT, f"the connection broke: {error.strerror or type(error).__name__}")
            case _:  # the session's boundary: whatever it is ends this session and no other
                self._end(EndedBy.FAILURE, f"{type(error).__name__}: {error}")

    # From the client

    async def _read(self, stream: ByteStream) -> None:
        try:
            async with asyncio.timeout(self._deadlines.request):
                request = await self._asked(stream)
        except TimeoutError as error:
            raise _EndError(EndedBy.CLIENT_STALLED, "the client did not say what it wants") from error
        await self._decide(request)
        await self._handle()
        while self._machine.stage is Stage.IMPORTED:
            data = await stream.read()
            if not data:
                break
            self._machine.feed(data)
            await self._handle()

    async def _asked(self, stream: ByteStream) -> Event:
        while (request := self._machine.take()) is None:
            data = await stream.read()
            if not data:
                raise _EndError(EndedBy.CLIENT, "the client left before it asked for anything")
            self._machine.feed(data)
        return request

    async def _decide(self, request: Event) -> None:
        listed = self._device.listed
        if isinstance(request, DevlistRequest):
            self._machine.show((listed,))
            await self._refused(EndedBy.CLIENT, "the client asked for the list alone")
        elif isinstance(request, ImportRequest) and request.bus_id == listed.device.bus_id:
            await self._import()
        else:
            self._machine.refuse(OpStatus.NO_DEVICE)
            await self._refused(EndedBy.CLIENT_ERROR, f"the client asked for another device, {request}")

    async def _refused(self, ended_by: EndedBy, reason: str) -> None:
        """The answer that was made is the last one."""
        await self._all_sent()
        raise _EndError(ended_by, reason)

    async def _import(self) -> None:
        try:
            port = await self._device.hold(on_done=self._done, on_gone=self._gone)
        except PrivysealError as error:
            self._machine.refuse(OpStatus.BUSY if error.code == "usb.in_use" else OpStatus.DEVICE_ERROR)
            await self._refused(EndedBy.NOT_HELD, str(error))
            return
        self._submitter = Submitter(
            self._machine,
            port,
            self._device.descriptors,
            self._device.listed.device.configuration_value,
            tap=self._tap,
            statistics=self.statistics,
        )
        self._machine.accept(self._device.listed.device)

    async def _handle(self) -> None:
        """All commands that have arrived, one after the other; then wait while the client takes no answers."""
        submitter = self._submitter
        while submitter is not None and (event := self._machine.take()) is not None:
            await self._pass_on(submitter, event)
        self._has_output.set()
        while self._unsent_bytes + self._machine.output_bytes > _UNSENT_BYTES:
            self._was_sent.clear()
            await self._was_sent.wait()

    async def _pass_on(self, submitter: Submitter, event: Event) -> None:
        slow = submitter.handle(event)
        if slow is not None:
            self._has_output.set()
            await slow

    # From the device

    def _done(self, done: Done) -> None:
        if self._submitter is None:
            return
        try:
            self._submitter.done(done)
        except SessionEnd as end:
            self._end(EndedBy.TAP, end.reason)
        except Exception as error:  # noqa: BLE001 - the session's boundary, as in `_note`
            self._end(EndedBy.FAILURE, f"{type(error).__name__}: {error}")
        self._has_output.set()

    def _gone(self) -> None:
        self._end(EndedBy.DEVICE_GONE, "the device was unplugged")

    # To the client

    async def _write(self, stream: ByteStream) -> None:
        while True:
            await self._has_output.wait()
            self._has_output.clear()
            output = self._machine.output()
            if output:
                self._unsent_bytes = len(output)
                try:
                    async with asyncio.timeout(self._deadlines.write):
                        await stream.write(output)
                except TimeoutError as error:
                    raise _EndError(EndedBy.CLIENT_STALLED, "the client does not take its answers") from error
            self._unsent_bytes = 0
            self._was_sent.set()

    async def _all_sent(self) -> None:
        self._has_output.set()
        while self._has_output.is_set() or self._unsent_bytes:
            self._was_sent.clear()
            await self._was_sent.wait()

    # The end

    async def _finish(
        self, reading: asyncio.Task[None], writing: asyncio.Task[None], stream: ByteStream
    ) -> SessionReport:
        end = self._over.result()
        reading.cancel()
        await asyncio.wait({reading})
        powered_off: bool | None = None
        was_reset, error = False, None
        submitter = self._submitter
        if submitter is not None:
            is_there = end.ended_by is not EndedBy.DEVICE_GONE
            await submitter.stop(self._deadlines.cancel if is_there else 0.0)
            await self._last_words(writing)
            powered_off = await self._switch_off(submitter) if is_there else None
            error = await _give_back(submitter.port)
            was_reset = error is None and is_there
        writing.cancel()
        await asyncio.wait({writing})
        stream.close()
        return SessionReport(
            ended_by=end.ended_by,
            reason=end.reason,
            was_imported=submitter is not None,
            was_powered_off=powered_off,
            was_reset=was_reset,
            give_back_error=error,
            statistics=self.statistics,
        )

    async def _last_words(self, writing: asyncio.Task[None]) -> None:
        """The answers to what was in flight, if the client takes them at once."""
        if writing.done():
            return
        sent = asyncio.create_task(self._all_sent())
        await asyncio.wait({sent, writing}, timeout=self._deadlines.cancel, return_when=asyncio.FIRST_COMPLETED)
        sent.cancel()
        await asyncio.wait({sent})

    async def _switch_off(self, submitter: Submitter) -> bool | None:
        configuration = self._device.descriptors.configuration(self._device.listed.device.configuration_value)
        found = readers(configuration) if configuration is not None else ()
        if not found:
            return None
        return await switch_cards_off(submitter, found, seconds=self._deadlines.power_off)


async def _give_back(port: HeldPort) -> PrivysealError | OSError | None:
    try:
        await port.give_back()
    except (UsbError, OSError) as error:
        return error
    return None


async def _in_spite_of_cancelling(work: Coroutine[Any, Any, SessionReport]) -> SessionReport:
    """Do this to its end, and be cancelled only then."""
    task = asyncio.ensure_future(work)
    was_cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            was_cancelled = True
    if was_cancelled:
        with contextlib.suppress(Exception):
            task.result()
        raise asyncio.CancelledError
    return task.result()
