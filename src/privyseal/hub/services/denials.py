# SPDX-License-Identifier: Apache-2.0
"""Refusals on record, so that nobody can fill the log (DESIGN §5).

Of one caller at most 60 in a minute are entries of their own; the rest of that minute becomes one entry with their
count. Of strangers there are counts alone, by code, once an hour. What was only counted is lost in a crash.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from privyseal.errors import PrivysealError
from privyseal.hub.entries import deny_entry
from privyseal.ports.store import Enrolment, Store, Tx
from privyseal.tlog.entry import Deny, encode_entry

__all__ = ["Denials"]

_LOG: Final = structlog.get_logger("privyseal.hub.denials")
_MINUTE_SECONDS: Final = 60.0
_HOUR_SECONDS: Final = 3600.0
_PER_MINUTE: Final = 60


@dataclass(slots=True)
class _Window:
    """One caller's minute: how many entries it has got, and what was only counted, by (profile, code)."""

    caller: Enrolment
    written: int = 0
    counted: Counter[tuple[str, str]] = field(default_factory=Counter)


class Denials:
    """Writes `deny` entries."""

    def __init__(
        self, store: Store, *, minute_seconds: float = _MINUTE_SECONDS, hour_seconds: float = _HOUR_SECONDS
    ) -> None:
        self._store: Final = store
        self._minute_seconds: Final = minute_seconds
        self._hour_seconds: Final = hour_seconds
        self._windows: dict[bytes, _Window] = {}
        self._strangers: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def refuse(self, caller: Enrolment, *, profile: str, request_id: str, code: str) -> None:
        """Put a refusal on record; durable when this returns, unless the caller has had its share of this minute.

        Raises:
            PrivysealError: as `Store.write`.
        """
        window = self._windows.get(caller.request_key)
        if window is None:
            window = self._windows[caller.request_key] = _Window(caller)
            self._later(self._minute_seconds, lambda: self._end_minute(caller.request_key))
        if window.written >= _PER_MINUTE:
            window.counted[profile, code] += 1
            return
        window.written += 1

        async def write(tx: Tx) -> None:
            await tx.append(encode_entry(deny_entry(caller, profile, request_id, code, await tx.now_ms())))

        await self._store.write(write)

    def count_stranger(self, code: str) -> None:
        """Count a refusal of somebody who is no member."""
        if not self._strangers:
            self._later(self._hour_seconds, self._end_hour)
        self._strangers[code] += 1

    def _later(self, seconds: float, end: Callable[[], Awaitable[None]]) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)
            await end()

        task = asyncio.create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Write what was only counted so far."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for request_key in tuple(self._windows):
            await self._end_minute(request_key)
        await self._end_hour()

    async def _end_minute(self, request_key: bytes) -> None:
        window = self._windows.pop(request_key)
        if not window.counted:
            return

        async def write(tx: Tx) -> None:
            for (profile, code), count in sorted(window.counted.items()):
                entry = deny_entry(window.caller, profile, "", code, await tx.now_ms(), count=count)
                await tx.append(encode_entry(entry))

        await self._try(write)

    async def _end_hour(self) -> None:
        counted, self._strangers = self._strangers, Counter()
        if not counted:
            return

        async def write(tx: Tx) -> None:
            for code, count in sorted(counted.items()):
                entry = Deny(ts=await tx.now_ms(), client="", profile="", request="", code=code, count=count)
                await tx.append(encode_entry(entry))

        await self._try(write)

    async def _try(self, write: Callable[[Tx], Awaitable[None]]) -> None:
        """Write counts; nobody waits for them, and a full disk only costs them."""
        try:
            await self._store.write(write)
        except PrivysealError as error:
            _LOG.error("counted refusals not written", code=error.code, reason=error.message)
