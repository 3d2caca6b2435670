# SPDX-License-Identifier: Apache-2.0
"""An event loop with virtual time, for several simulated processes, driven by a seed.

Within a process callbacks run in the order in which they were asked for, as asyncio promises; which process runs next
is drawn. When nobody can run, time jumps to the next timer. A process that was killed never runs again: what it had
scheduled is dropped, and what it was in the middle of is kept, untouched, until the schedule is over.
"""

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["Killed", "Process", "SimLoop"]

T = TypeVar("T")
_OWNER: contextvars.ContextVar["Process"] = contextvars.ContextVar("simulated process")


class Killed(BaseException):
    """Raised where a process was killed, to leave the code that it was in."""


class Process:
    """What shares one fate."""

    def __init__(self, loop: "SimLoop", name: str) -> None:
        self.name = name
        self.alive = True
        self.ready: deque[asyncio.Handle] = deque()
        self.at_death: list[Callable[[], None]] = []
        self.context = contextvars.Context()
        self.context.run(_OWNER.set, self)
        self.loop = loop

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run a coroutine as a part of this process."""
        return self.loop.create_task(work, context=self.context.copy())

    def call_at(self, when: float, call: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        """Call something as a part of this process."""
        return self.loop.call_at(when, call, *args, context=self.context)

    def kill(self) -> None:
        """End it between two instructions. Who asks for it from inside must raise `Killed` next."""
        if not self.alive:
            return
        self.alive = False
        self.ready.clear()
        for call in self.at_death:
            call()


class SimLoop(asyncio.BaseEventLoop):
    """The loop. All delays are drawn from `choice`, so that a seed is a schedule."""

    def __init__(self, choice: random.Random) -> None:
        super().__init__()
        self.choice = choice
        self.world = Process(self, "world")
        #: What was raised and caught by nobody in a process that lives.
        self.unforeseen: list[tuple[str, BaseException]] = []
        self.steps = 0
        self._now = 0.0
        self._order = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._runnable: list[Process] = []
        self._all: list[asyncio.Task[Any]] = []
        self._free_at: dict[object, float] = {}
        self._over = False

    # -- what asyncio asks of a loop ------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return self._over

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> "asyncio.Task[T]":
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._all.append(task)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._make_ready(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + max(delay, 0.0), callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Blocking work: it happens at one moment, drawn; what one executor was given happens in its order."""
        future: asyncio.Future[T] = self.create_future()

        def act() -> None:
            try:
                value = func(*args)
            except Killed:
                return
            except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(value)

        when = max(self._now + self.short_delay(), self._free_at.get(executor, 0.0))
        self._free_at[executor] = when
        self.call_at(when, act)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or isinstance(error, Killed) or self._over:
            return
        owner = _OWNER.get(self.world)
        if owner.alive:
            self.unforeseen.append((owner.name, error))

    # -- running --------------------------------------------------------------------------------------------------

    def short_delay(self) -> float:
        """How long a disk, a socket or a token takes: mostly a moment, now and then seconds."""
        kind = self.choice.random()
        if kind < 0.80:
            return self.choice.random() * 0.005
        return self.choice.random() * (0.3 if kind < 0.97 else 5.0)

    def _make_ready(self, handle: asyncio.Handle) -> None:
        owner: Process = handle._context.get(_OWNER, self.world)  # type: ignore[attr-defined]
        if self._over or not owner.alive:
            return
        if not owner.ready:
            self._runnable.append(owner)
        owner.ready.append(handle)

    def run(self, done: Callable[[], bool], *, until: float) -> bool:
        """Run until `done`; False if nothing is left to be done before, or until the time has come."""
        asyncio._set_running_loop(self)
        try:
            while not done():
                if not self._step(until):
                    return False
            return True
        finally:
            asyncio._set_running_loop(None)

    def _step(self, until: float) -> bool:
        while self._runnable:
            place = self.choice.randrange(len(self._runnable)) if len(self._runnable) > 1 else 0
            process = self._runnable[place]
            if not process.ready:  # killed meanwhile
                self._runnable.pop(place)
                continue
            handle = process.ready.popleft()
            if not process.ready:
                self._runnable.pop(place)
            self.steps += 1
            if not handle.cancelled():
                handle._run()
            return True
        if not self._timers or self._timers[0][0] > until:
            return False
        when, _, timer = heapq.heappop(self._timers)
        self._now = max(self._now, when)
        if not timer.cancelled():
            self._make_ready(timer)
        return True

    def end(self) -> None:
        """Let go of everything; whatever still runs a `finally` then schedules nothing."""
        self._over = True
        self._timers.clear()
        self._runnable.clear()
        asyncio._set_running_loop(self)  # some `finally` asks for it
        for task in self._all:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(RuntimeError):  # it awaits something while it ends
                    task.get_coro().close()
        asyncio._set_running_loop(None)
        self._all.clear()
