# SPDX-License-Identifier: Apache-2.0
"""Simulated connections: what TCP with TLS over it promises, and no more.

Within a link frames keep their order and come once; a cut loses the end of what was on its way, in each direction, and
each end hears of it in its own time, up to the heartbeat. A call is a request and its answer; either may be lost, and
the request may arrive twice, the second time much later.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import WSMessage, WSMsgType

from privyseal.errors import PrivysealError
from simulated.chaos import Chaos
from simulated.loop import Killed, Process, SimLoop

__all__ = ["End", "Link", "Network"]

T = TypeVar("T")
#: A process, and what it does when it is called.
Callee = tuple[Process, Callable[[], Awaitable[T]]]
_HEARTBEAT_SECONDS = 15.0


class End:
    """One end of a link: what agent and hub see of a WebSocket."""

    def __init__(self, link: "Link", process: Process) -> None:
        self.process = process
        self.closed = False
        self._link = link
        self._frames: deque[WSMessage] = deque()
        self._waiting: asyncio.Future[None] | None = None
        process.at_death.append(link.cut)

    async def send_bytes(self, data: bytes) -> None:
        if self.closed:
            raise ConnectionResetError("Cannot write to closing transport")
        self._link.carry(self, data)
        if self._link.loop.choice.random() < 0.2:
            await asyncio.sleep(self._link.loop.short_delay())  # the peer reads slowly

    async def receive(self) -> WSMessage:
        while not self._frames:
            self._waiting = self._link.loop.create_future()
            await self._waiting
        return self._frames.popleft()

    async def __aiter__(self) -> AsyncIterator[WSMessage]:
        while (frame := await self.receive()).type is not WSMsgType.CLOSED:
            yield frame

    def deliver(self, frame: WSMessage) -> None:
        if frame.type is WSMsgType.CLOSED:
            if self.closed:
                return
            self.closed = True
        self._frames.append(frame)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def close(self) -> None:
        """Hang up; what was sent still arrives. Never suspends: a `finally` of a killed process may be the caller."""
        self.deliver(WSMessage(WSMsgType.CLOSED, None, ""))
        self._link.hang_up(self)


class Link:
    """A connection of two processes."""

    def __init__(self, loop: SimLoop, chaos: Chaos, agent: Process, hub: Process) -> None:
        self.loop = loop
        self.agent = End(self, agent)
        self.hub = End(self, hub)
        self._chaos = chaos
        self._cut = False
        self._free_at = {self.agent: 0.0, self.hub: 0.0}
        self._under_way: dict[End, list[asyncio.TimerHandle]] = {self.agent: [], self.hub: []}

    def _other(self, end: End) -> End:
        return self.hub if end is self.agent else self.agent

    def carry(self, sender: End, data: bytes) -> None:
        """Take a frame on its way. The sender may be killed before or after."""
        name = f"{sender.process.name} killed at a step"
        for moment in ("before", "after"):
            if moment == "after" and not self._cut:
                self._send(sender, WSMessage(WSMsgType.BINARY, data, ""))
            if self._chaos.strikes(name):
                self._chaos.struck.append(f"({moment} a frame is sent)")
                sender.process.kill()
                raise Killed
        if self._chaos.strikes("link cut at a frame"):
            self.cut()

    def _send(self, sender: End, frame: WSMessage) -> None:
        receiver = self._other(sender)
        when = max(self.loop.time() + self.loop.short_delay(), self._free_at[receiver])
        self._free_at[receiver] = when
        self._under_way[receiver].append(receiver.process.call_at(when, receiver.deliver, frame))

    def hang_up(self, sender: End) -> None:
        """An orderly end."""
        if not self._cut:
            self._send(sender, WSMessage(WSMsgType.CLOSED, None, ""))
            self._cut = True

    def cut(self) -> None:
        """A disorderly end: of what is on its way a part may arrive, and both ends hear of it some time."""
        if self._cut:
            return
        self._cut = True
        now = self.loop.time()
        for receiver, handles in self._under_way.items():
            late = [handle for handle in handles if handle.when() >= now and not handle.cancelled()]
            arriving = self.loop.choice.randint(0, len(late))
            for handle in late[arriving:]:
                handle.cancel()
            quick = self.loop.choice.random() < 0.5
            heard = now + (self.loop.short_delay() if quick else self.loop.choice.random() * _HEARTBEAT_SECONDS)
            when = max([heard, *(handle.when() for handle in late[:arriving])])
            receiver.process.call_at(when, receiver.deliver, WSMessage(WSMsgType.CLOSED, None, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Calls between processes."""

    loop: SimLoop
    chaos: Chaos

    async def call(self, caller: Process, callee: Callable[[], Callee[T] | None]) -> T:
        """Ask a process that may be gone when the question arrives.

        Args:
            caller: Who asks.
            callee: Asked when the request arrives: who answers, and how; None if nobody listens.

        Raises:
            ConnectionError: no answer, for whatever reason.
            PrivysealError: what the callee raised.
        """
        answer: asyncio.Future[T] = self.loop.create_future()

        def tell(hear: Callable[[Any], None], what: Any) -> None:
            if not self.chaos.strikes("answer lost"):
                caller.call_at(self.loop.time() + self.loop.short_delay(), _first, answer, hear, what)

        async def handle(handler: Callable[[], Awaitable[T]]) -> None:
            try:
                value = await handler()
            except PrivysealError as error:
                tell(answer.set_exception, error)
            else:
                tell(answer.set_result, value)

        def arrive() -> None:
            called = callee()
            if called is None:
                tell(answer.set_exception, ConnectionRefusedError("nobody listens"))
            else:
                called[0].spawn(handle(called[1]))

        if not self.chaos.strikes("call lost"):
            self.loop.world.call_at(self.loop.time() + self.loop.short_delay(), arrive)
        if self.chaos.strikes("call sent twice"):
            self.loop.world.call_at(self.loop.time() + self.loop.choice.random() * 60.0, arrive)
        patience_seconds = self.loop.choice.choice((3.0, 20.0, 90.0))
        caller.call_at(
            self.loop.time() + patience_seconds, _first, answer, answer.set_exception, ConnectionResetError("no answer")
        )
        return await answer


def _first(answer: "asyncio.Future[Any]", hear: Callable[[Any], None], what: Any) -> None:
    """Of several answers the first counts."""
    if not answer.done():
        hear(what)
