# SPDX-License-Identifier: Apache-2.0
"""Pipes without a network: a pair of ends, and what can go wrong between them."""

import asyncio
from collections import deque
from collections.abc import Callable

from privyseal.ports.pipe import MAX_PIECE_BYTES

__all__ = ["MemoryPipe", "pipe_pair"]

#: A little less than a socket holds.
BOUND_BYTES = 4 * MAX_PIECE_BYTES


class _Way:
    """One direction."""

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.held = 0
        self.most_held = 0
        self.over = False
        self.frozen = False
        self.moved = asyncio.Condition()
        self.change: Callable[[bytes], bytes] = lambda piece: piece

    async def put(self, piece: bytes) -> None:
        assert 0 < len(piece) <= MAX_PIECE_BYTES
        async with self.moved:
            await self.moved.wait_for(lambda: self.over or self.held < BOUND_BYTES)
            if self.over:
                raise ConnectionResetError("the pipe was cut")
            if self.frozen:
                return
            self.pieces.append(self.change(piece))
            self.held += len(piece)
            self.most_held = max(self.most_held, self.held)
            self.moved.notify_all()

    async def get(self) -> bytes:
        async with self.moved:
            await self.moved.wait_for(lambda: self.over or self.pieces)
            if not self.pieces:
                return b""
            piece = self.pieces.popleft()
            self.held -= len(piece)
            self.moved.notify_all()
            return piece

    async def end(self) -> None:
        async with self.moved:
            self.over = True
            self.moved.notify_all()


class MemoryPipe:
    """One end."""

    def __init__(self, out: _Way, back: _Way) -> None:
        self.out, self.back = out, back
        self._ending: list[asyncio.Task[None]] = []

    async def send(self, data: bytes) -> None:
        await self.out.put(data)

    async def receive(self) -> bytes:
        return await self.back.get()

    def close(self) -> None:
        self._ending += [asyncio.create_task(way.end()) for way in (self.out, self.back)]

    async def closed(self) -> None:
        await asyncio.gather(*self._ending)

    async def cut(self) -> None:
        """What is on its way is lost, as with a network that is."""
        for way in (self.out, self.back):
            way.pieces.clear()
            await way.end()


def pipe_pair() -> tuple[MemoryPipe, MemoryPipe]:
    """Two ends of one pipe."""
    out, back = _Way(), _Way()
    return MemoryPipe(out, back), MemoryPipe(back, out)
