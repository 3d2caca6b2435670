# SPDX-License-Identifier: Apache-2.0
"""The stream of a USB lease, one side of it: bytes both ways, notices, an end; heartbeats, and bounds for everything.

It goes over a pipe in which nobody else reads (`identity/pinned_pipe.py`). Both sides notice by themselves, each by its
own clock, when the other one is silent. A channel with `grace_seconds` outlives the loss of its pipe: another one is
made, and what has not arrived is sent again.
"""

import asyncio
import statistics
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from privyseal.errors import MalformedInputError, PrivysealError
from privyseal.ports.pipe import Pipe
from privyseal.relay.limits import ChannelLimits, ChannelStatistics
from privyseal.relay.numbered import Arriving, Leaving
from privyseal.wire.relay import (
    MAX_DATA_BYTES,
    Ack,
    Data,
    Decoder,
    End,
    Message,
    Notice,
    Ping,
    Pong,
    Resume,
    encode,
    malformed,
)

__all__ = ["Channel", "Reconnect"]

_MEASURED: Final = 64

#: Makes the next pipe of a channel whose pipe was lost; called again while it raises OSError or PrivysealError.
Reconnect = Callable[[], Awaitable[Pipe]]


class Channel:
    """A `ByteStream` of `usb/streams.py` with more to it. It runs from when it is made until `close`, or both ends.

    Attributes:
        ended: The other side's `End`, once everything before it was read.
        lost: Why the other side is gone although it did not say so; empty if it is not.
    """

    def __init__(
        self,
        pipe: Pipe,
        limits: ChannelLimits | None = None,
        *,
        reconnect: Reconnect | None = None,
        noticed: Callable[[Notice], None] = lambda _: None,
    ) -> None:
        """Run over a pipe, which the channel closes.

        Args:
            pipe: A fresh one, to the right peer.
            limits: Numbers.
            reconnect: Makes another pipe to the same peer; nothing is made up for without it.
            noticed: Called with each notice of the other side.
        """
        self._limits: Final = limits or ChannelLimits()
        self._reconnect: Final = reconnect
        self._noticed: Final = noticed
        self._leaving: Final = Leaving(self._limits.window_bytes)
        self._arriving: Final = Arriving(self._limits.window_bytes)
        self._loop: Final = asyncio.get_running_loop()
        self._readable, self._room, self._sendable = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._pings: dict[int, float] = {}
        self._ping = 0
        self._ping_due = False
        self._pong: int | None = None
        self._rtts: deque[float] = deque(maxlen=_MEASURED)
        self._heard_s = self._loop.time()
        self._sent_bytes = self._received_bytes = self._reconnected = 0
        self._is_closing = self._is_between = self._is_over = False
        self.lost = ""
        self._pipe = pipe
        self._running: Final = asyncio.create_task(self._run(), name="usb channel")

    # -- what the application asks for ----------------------------------------------------------------------------

    async def read(self) -> bytes:
        """What comes next, at most 64 KiB; empty at the end. One task reads at a time.

        Raises:
            ConnectionError: the other side is gone without an end.
        """
        while not self._arriving.has_data:
            if self.lost:
                raise ConnectionError(self.lost)
            if self._arriving.ended is not None or self._is_over or self._is_closing:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = self._arriving.read()
        self._received_bytes += len(data)
        if self._arriving.should_tell:
            self._sendable.set()
        return data

    async def write(self, data: bytes) -> None:
        """Send; it returns when there is room for more. A call that is cancelled has sent a part, in whole pieces.

        Raises:
            ConnectionError: the other side is gone, or this one has ended.
        """
        for start in range(0, len(data), MAX_DATA_BYTES):
            piece = data[start : start + MAX_DATA_BYTES]
            await self._say(Data(piece))
            self._sent_bytes += len(piece)

    async def notice(self, code: str, text: str) -> None:
        """Tell the other side something; it goes out behind what was written before.

        Raises:
            ConnectionError: as `write`. MalformedInputError: `relay.malformed`.
        """
        await self._say(Notice(code, text))

    async def end(self, code: str, text: str, summary: bytes = b"") -> None:
        """Say that nothing more will come from this side; what the other side sends is still read.

        Raises:
            ConnectionError: as `write`. MalformedInputError: `relay.malformed`.
        """
        await self._say(End(code, text, summary))

    def close(self) -> None:
        """End both ways, soon; an end is said if none was, and what was written is sent if that takes no waiting."""
        if self._is_closing or self._is_over:
            return
        self._is_closing = True
        self._discard()
        closed = End("closed", "this side has closed the channel")
        if not self._leaving.ended and self._leaving.has_room(closed):
            self._leaving.say(closed)
        self._wake()
        self._loop.call_later(0 if self._is_between else self._limits.close_seconds, self._running.cancel)

    async def finished(self) -> None:
        """Return when nothing more goes either way, and the pipe is closed."""
        await asyncio.wait((self._running,))
        await self._pipe.closed()

    @property
    def ended(self) -> End | None:
        """The other side's end, once all that came before it was read."""
        return None if self._arriving.has_data else self._arriving.ended

    @property
    def held_bytes(self) -> int:
        """How much the channel holds now, of both directions."""
        return self._leaving.held_bytes + self._arriving.held_bytes

    @property
    def statistics(self) -> ChannelStatistics:
        """As of now."""
        return ChannelStatistics(
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            rtt_min_seconds=min(self._rtts, default=None),
            rtt_p50_seconds=statistics.median(self._rtts) if self._rtts else None,
            reconnected=self._reconnected,
        )

    async def _say(self, message: Data | Notice | End) -> None:
        while True:
            if self.lost:
                raise ConnectionError(self.lost)
            if self._leaving.ended or self._is_over:
                raise BrokenPipeError("this side of the channel has ended")
            if self._leaving.has_room(message):
                break
            self._room.clear()
            await self._room.wait()
        self._leaving.say(message)
        self._sendable.set()

    # -- one connection after the other ---------------------------------------------------------------------------

    async def _run(self) -> None:
        reason = "this side failed"
        try:
            while reason := await self._over(self._pipe):
                pipe = await self._again()
                if pipe is None:
                    break
                self._pipe = pipe
        except MalformedInputError as error:
            reason = str(error)
        finally:
            if not self._is_closing and self._arriving.ended is None:
                self.lost = reason
            self._is_over = True
            self._wake()

    async def _over(self, pipe: Pipe) -> str:
        """Go on over a pipe until it is lost, and why; empty if nothing is left to be said.

        Raises:
            MalformedInputError: `relay.malformed`.
        """
        self._heard_s = self._loop.time()
        self._pings.clear()
        self._pong, self._ping_due = None, True
        works: list[Coroutine[Any, Any, str]] = [self._carry(pipe), self._watch()]
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(task for task in tasks if task.done()).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            pipe.close()

    async def _again(self) -> Pipe | None:
        """Another pipe in the place of one that was lost, if there is one in time."""
        if self._reconnect is None or not self._limits.grace_seconds or self._is_closing:
            return None
        self._is_between = True
        try:
            async with asyncio.timeout(self._limits.grace_seconds):
                while True:
                    try:
                        pipe = await self._reconnect()
                    except (OSError, PrivysealError):
                        await asyncio.sleep(self._limits.again_seconds)
                    else:
                        self._reconnected += 1
                        return pipe
        except TimeoutError:
            return None
        finally:
            self._is_between = False

    async def _carry(self, pipe: Pipe) -> str:
        decoder = Decoder()
        try:
            await pipe.send(encode(Resume(self._arriving.progress())))
            rest = await self._resumed(pipe, decoder)
            if rest is None:
                return "the connection ended"
            sending = asyncio.create_task(self._send(pipe))
            receiving = asyncio.create_task(self._receive(pipe, decoder, rest))
            try:
                await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
                if sending.done() and sending.exception() is None:
                    return sending.result()
                # What broke the sending is told by what still arrives, be it the other side's end.
                await asyncio.wait((receiving,), timeout=self._limits.close_seconds)
                return (receiving if receiving.done() else sending).result()
            finally:
                sending.cancel()
                receiving.cancel()
                await asyncio.gather(sending, receiving, return_exceptions=True)
        except OSError as error:
            return str(error) or "the connection broke"

    async def _resumed(self, pipe: Pipe, decoder: Decoder) -> list[Message] | None:
        """Hear how far the other side is; what came with it, or None at the end."""
        while data := await pipe.receive():
            messages = decoder.feed(data)
            if messages:
                first, *rest = messages
                if not isinstance(first, Resume):
                    raise malformed("it does not begin with how far it is")
                self._leaving.resume(first.progress)
                return rest
        return None

    # -- sending --------------------------------------------------------------------------------------------------

    async def _send(self, pipe: Pipe) -> str:
        """Send what there is, until nothing is left to be said at all."""
        while True:
            self._sendable.clear()
            data = self._control() + self._leaving.take()
            if data:
                await pipe.send(data)
            elif self._leaving.ended and self._arriving.ended is not None:
                return ""
            else:
                await self._sendable.wait()

    def _control(self) -> bytes:
        """What is to be said of the connection itself."""
        said = b""
        if self._ping_due:
            self._ping_due = False
            self._ping += 1
            self._pings[self._ping] = self._loop.time()
            self._pings.pop(self._ping - _MEASURED, None)
            said += encode(Ping(self._ping, self._arriving.progress()))
        if self._pong is not None:
            said += encode(Pong(self._pong, self._arriving.progress()))
            self._pong = None
        if self._arriving.should_tell:
            said += encode(Ack(self._arriving.progress()))
        return said

    async def _watch(self) -> str:
        """Have pings sent, and return when nothing came for too long."""
        next_ping_s = self._loop.time() + self._limits.heartbeat_seconds
        while True:
            now_s = self._loop.time()
            silent_s = self._heard_s + self._limits.silent_seconds
            if now_s >= silent_s:
                return f"nothing came from the other side for {self._limits.silent_seconds:g} s"
            if now_s >= next_ping_s:
                self._ping_due = True
                self._sendable.set()
                next_ping_s = now_s + self._limits.heartbeat_seconds
            await asyncio.sleep(min(next_ping_s, silent_s) - now_s)

    # -- receiving ------------------------------------------------------------------------------------------------

    async def _receive(self, pipe: Pipe, decoder: Decoder, rest: list[Message]) -> str:
        for message in rest:
            self._take(message)
        while data := await pipe.receive():
            self._heard_s = self._loop.time()
            for message in decoder.feed(data):
                self._take(message)
        if self._leaving.ended and self._arriving.ended is not None and not self._leaving.pending:
            return ""
        return "the connection ended"

    def _take(self, message: Message) -> None:
        match message:
            case Data() | End():
                self._arriving.take(message)
                self._readable.set()
                if self._is_closing:
                    self._discard()
                if isinstance(message, End):
                    self._sendable.set()
            case Notice():
                self._arriving.take(message)
                self._noticed(message)
            case Ping():
                self._pong = message.number
                self._told(message)
                self._sendable.set()
            case Pong():
                self._measure(message.number)
                self._told(message)
            case Ack():
                self._told(message)
            case Resume():
                raise malformed("it says twice how far it is")

    def _discard(self) -> None:
        """Nobody reads any more; what comes before the other side's end makes room for it."""
        while self._arriving.has_data:
            self._arriving.read()
        self._sendable.set()

    def _told(self, message: Ping | Pong | Ack) -> None:
        self._leaving.told(message.progress)
        self._room.set()

    def _measure(self, number: int) -> None:
        sent_s = self._pings.pop(number, None)
        if sent_s is not None:
            self._rtts.append(self._loop.time() - sent_s)
            for older in [one for one in self._pings if one < number]:
                del self._pings[older]

    def _wake(self) -> None:
        for event in (self._readable, self._room, self._sendable):
            event.set()
