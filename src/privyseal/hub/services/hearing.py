# SPDX-License-Identifier: Apache-2.0
"""What other hub processes of the same database have changed, brought into this one's view of it.

They tell which requests they changed. What is told may be lost, so the whole queue is read again from time to time.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from privyseal.errors import UnavailableError
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.queue_board import QueueBoard
from privyseal.ports.queue import QueuedRequest
from privyseal.ports.store import ReadTx, Store

__all__ = ["Hearing"]

_LOG: Final = structlog.get_logger("privyseal.hub")
#: Who holds no lease needs the queue for its clients' places alone.
_GATHER_SECONDS: Final = 0.25
_POLL_SECONDS: Final = 5.0


class Hearing:
    """Keeps the queue board of one process near the database."""

    def __init__(
        self,
        *,
        store: Store,
        board: QueueBoard,
        dispatch: Dispatch,
        changed: Callable[[str], None],
        changed_all: Callable[[], None],
    ) -> None:
        """`changed` and `changed_all` wake those who wait for one request, or for any."""
        self._store: Final = store
        self._board: Final = board
        self._dispatch: Final = dispatch
        self._changed: Final = changed
        self._changed_all: Final = changed_all
        self._heard: dict[str, None] = {}
        self._may_be_any = False
        self._news: Final = asyncio.Event()

    def listen(self) -> None:
        """Hear the others from now on."""
        self._store.listen(self._hear)

    def _hear(self, request_ids: tuple[str, ...]) -> None:
        if not request_ids:
            self._may_be_any = True
        self._heard.update(dict.fromkeys(request_ids))
        self._news.set()

    async def run(self) -> None:
        """Follow what is heard until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._news.wait()
            if not self._news.is_set():
                self._may_be_any = True
            elif not any(lane.lease.held for lane in self._dispatch.lanes):
                await asyncio.sleep(_GATHER_SECONDS)
            self._news.clear()
            try:
                await self._follow()
            except UnavailableError as error:
                self._may_be_any = True
                _LOG.warning("the queue was not read", code=error.code, reason=error.message)

    async def _follow(self) -> None:
        heard, may_be_any = tuple(self._heard), self._may_be_any
        self._heard.clear()
        self._may_be_any = False
        if may_be_any:
            self._board.load(await self._store.read(lambda tx: tx.queued_requests()))
            self._changed_all()
        else:
            await self._take(heard)
        for lane in self._dispatch.lanes:
            lane.wake()

    async def _take(self, heard: tuple[str, ...]) -> None:
        under_way = {
            part.request.id for lane in self._dispatch.lanes for one in lane.under_way for part in one.batch.parts
        }

        async def read(tx: ReadTx) -> tuple[dict[str, QueuedRequest | None], list[str]]:
            found = {request_id: await tx.queued_request(request_id) for request_id in heard}
            cancelled = []
            for request_id in under_way.intersection(heard):
                request = await tx.request(request_id)
                if request is not None and request.cancelled_ms is not None:
                    cancelled.append(request_id)
            return found, cancelled

        found, cancelled = await self._store.read(read)
        self._board.update(found)
        for request_id in heard:
            self._changed(request_id)
        for request_id in cancelled:
            for lane in self._dispatch.lanes:
                await lane.recall(request_id)
