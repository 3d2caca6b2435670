# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is at a token: in the order in which they come, as many at a time as the token has workers.

A quick token with one worker lets in one more, whose call then waits at the worker. Without that the token would be
idle between two signatures for as long as the agent takes to hear of the one and to send the next: a tenth of the time
of a token that signs in 5 ms, and next to nothing for one that takes 50 ms. What waits there counts as begun: it is not
handed back any more.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["Turns"]

#: A token that takes longer loses little between two signatures.
_QUICK_SECONDS: Final = 0.02
#: Who signs, and who waits at the worker.
_WITH_ONE_AHEAD: Final = 2


class Turns:
    """The turns of one token; `async with` takes one."""

    def __init__(self, workers: int = 1) -> None:
        """Let in as many at a time as there are workers."""
        self.workers: Final = workers
        self._places = workers
        self._inside = 0
        self._line: Final = asyncio.Lock()
        self._left: Final = asyncio.Event()
        self._since_s = 0.0

    @property
    def most(self) -> int:
        """How many may ever be inside at a time."""
        return max(self.workers, _WITH_ONE_AHEAD)

    async def __aenter__(self) -> None:
        """Wait for a turn."""
        async with self._line:
            while self._inside >= self._places:
                await self._somebody_leaves()
            if not self._inside:
                self._since_s = asyncio.get_running_loop().time()
            self._inside += 1

    async def __aexit__(self, *_: object) -> None:
        """Give it to the next."""
        now_s = asyncio.get_running_loop().time()
        if self.workers == 1:
            self._places = _WITH_ONE_AHEAD if now_s - self._since_s < _QUICK_SECONDS else 1
        self._since_s = now_s
        self._inside -= 1
        self._left.set()

    @asynccontextmanager
    async def rest(self) -> AsyncIterator[None]:
        """Within this the token is at rest: who was inside has left, and nobody else is let in."""
        async with self._line:
            while self._inside:
                await self._somebody_leaves()
            yield

    async def _somebody_leaves(self) -> None:
        self._left.clear()
        await self._left.wait()
