# SPDX-License-Identifier: Apache-2.0
"""Anchors: a TSA's timestamp token over the log's newest checkpoint, as an entry of the log.

Asked for by a client, or by the hub itself every so often. Nothing that signs waits for it.
"""

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from privyseal.errors import PrivysealError, UnavailableError
from privyseal.hub.entries import anchor_entry
from privyseal.hub.services.timestamps import Timestamps
from privyseal.pki import tsp
from privyseal.ports.clock import Clock
from privyseal.ports.store import Enrolment, Store, Tx
from privyseal.tlog.audit import ANCHOR_WINDOW
from privyseal.tlog.checkpoint import parse_checkpoint
from privyseal.tlog.entry import Anchor, parse_entry
from privyseal.tlog.note import parse_note
from privyseal.wire.api import AnchorView

__all__ = ["Anchors"]

_LOG: Final = structlog.get_logger("privyseal.hub.anchors")
_PAUSE_MS: Final = 60_000
_RETRY_SECONDS: Final = 600.0
#: How far back the hub looks for its last anchor when it starts.
_SEEN: Final = 16
_BUNDLE: Final = 256


def _ticks() -> int:
    return time.monotonic_ns() // 1_000_000


class Anchors:
    """Has the newest checkpoint timestamped: at most once a minute."""

    def __init__(
        self,
        *,
        store: Store,
        timestamps: Timestamps,
        clock: Clock,
        every_seconds: float = 0.0,
        ticks: Clock = _ticks,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take what it works with.

        Args:
            store: Where the log is.
            timestamps: The way to the TSAs.
            clock: This machine's time.
            every_seconds: How often the hub asks by itself; 0 for never.
            ticks: Milliseconds that never go back, for the pause between anchors.
            sleep: Lets time pass.
        """
        self._store: Final = store
        self._timestamps: Final = timestamps
        self._clock: Final = clock
        self._every_seconds: Final = every_seconds
        self._ticks: Final = ticks
        self._sleep: Final = sleep
        self._turn: Final = asyncio.Lock()
        self._last_ticks: int | None = None
        self._task: asyncio.Task[None] | None = None

    async def create(self, caller: Enrolment | None) -> AnchorView:
        """Anchor the newest checkpoint; the entry is durable before this returns.

        Args:
            caller: The client that asked; None if the hub does so by itself.

        Raises:
            UnavailableError: `anchor.recent` within a minute of the last one; `anchor.outrun` if the log grew too far
                meanwhile; as `Timestamps.fetch`.
            ConfigError, UnsupportedInputError, DeniedError: as `Timestamps.fetch`.
        """
        async with self._turn:
            now = self._ticks()
            if self._last_ticks is not None and now - self._last_ticks < _PAUSE_MS:
                raise UnavailableError("anchor.recent", "the log was anchored less than a minute ago", hint="try later")
            view = await self._create(caller)
            self._last_ticks = now
            return view

    async def _create(self, caller: Enrolment | None) -> AnchorView:
        checkpoint = parse_checkpoint(parse_note(self._store.head.note).text)
        imprint = hashlib.sha256(checkpoint.text.encode()).digest()
        asked = tsp.TimeStampReq(digest_algorithm="sha256", imprint=imprint, nonce=secrets.randbits(63) + 1)
        fresh = await self._timestamps.fetch(caller, asked)

        async def write(tx: Tx) -> int:
            if await tx.log_size() + 1 - checkpoint.size > ANCHOR_WINDOW:
                raise UnavailableError(
                    "anchor.outrun", f"the log grew by more than {ANCHOR_WINDOW} entries while a TSA was asked"
                )
            return await tx.append(anchor_entry(caller, checkpoint, fresh, await tx.now_ms()))

        index = await self._store.write(write)
        return AnchorView(
            index=index,
            size=checkpoint.size,
            time_ms=int(fresh.gen_time.timestamp() * 1000),
            tsa=fresh.certificate_sha256.hex(),
        )

    def start(self) -> None:
        """Begin to anchor by itself, if that is wanted."""
        if self._every_seconds:
            self._task = asyncio.create_task(self._run(), name="privyseal-anchors")

    async def stop(self) -> None:
        """End that."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                pause = await self._due_seconds()
                if pause <= 0:
                    view = await self.create(None)
                    _LOG.info("log anchored", size=view.size, index=view.index)
                    continue
            except PrivysealError as error:
                _LOG.warning("log not anchored", code=error.code, reason=error.message)
                pause = min(_RETRY_SECONDS, self._every_seconds)
            await self._sleep(pause)

    async def _due_seconds(self) -> float:
        """How long until the next anchor is due: the time since the last, and never for what holds nothing new."""
        index, last_ms = await self._last()
        if last_ms is None:
            return 0.0
        if index == self._store.head.size - 1:
            return self._every_seconds
        return self._every_seconds - (self._clock() - last_ms) / 1000

    async def _entries(self, start: int, end: int) -> tuple[bytes, ...]:
        return await self._store.read(lambda tx: tx.entries(start, end - start))

    async def _last(self) -> tuple[int, int | None]:
        """Index and time of the newest anchor among the last few thousand entries."""
        end = self._store.head.size
        for _ in range(_SEEN):
            start = max(0, end - _BUNDLE)
            found = await self._entries(start, end)
            for place in range(len(found) - 1, -1, -1):
                # Most are of another type: they need not be read whole.
                if b'"t":"anchor"' in found[place] and isinstance(entry := parse_entry(found[place]), Anchor):
                    return start + place, entry.ts
            if start == 0:
                break
            end = start
        return -1, None
