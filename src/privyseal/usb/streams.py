# SPDX-License-Identifier: Apache-2.0
"""A stream of bytes to the other side, whatever carries it."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from privyseal.errors import PrivysealError

__all__ = ["ByteStream", "CarryEnd", "Filter", "KeptStream", "SocketStream", "carry"]

_READ_BYTES: Final = 65_536
#: How much may wait to be sent before a writer waits.
_UNSENT_BYTES: Final = 256 * 1024


class ByteStream(Protocol):
    """Bytes both ways, in order. One task reads, one writes, at a time."""

    async def read(self) -> bytes:
        """What comes next, at most 64 KiB; empty at the end.

        Raises:
            OSError: The connection broke.
        """

    async def write(self, data: bytes) -> None:
        """Send; it returns when there is room for more.

        Raises:
            OSError: The connection broke.
        """

    def close(self) -> None:
        """End both ways, soon; what was written is sent if that goes without waiting for the other side."""


class KeptStream:
    """A stream that its user cannot end: something is to be said over it afterwards."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream: Final = stream

    async def read(self) -> bytes:
        """What comes next; empty at the end."""
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        """Send; it returns when there is room for more."""
        await self._stream.write(data)

    def close(self) -> None:
        """Nothing: whoever has the stream ends it."""


class SocketStream:
    """A socket of asyncio's streams; small messages go out at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        writer.transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        connected = writer.get_extra_info("socket")
        if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    async def over(cls, connected: socket.socket) -> "SocketStream":
        """A stream over a connected socket, which it owns from now on."""
        return cls(*await asyncio.open_connection(sock=connected))

    async def read(self) -> bytes:
        """What comes next; empty at the end."""
        return await self._reader.read(_READ_BYTES)

    async def write(self, data: bytes) -> None:
        """Send; it returns when there is room for more."""
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        """End both ways."""
        with contextlib.suppress(RuntimeError, OSError):  # the loop or the transport has ended before
            if self._writer.transport.get_write_buffer_size():
                self._writer.transport.abort()  # nobody waits for a peer that does not read
            self._writer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryEnd:
    """How the carrying between two streams ended.

    Attributes:
        was_first: Whether it was the first stream that ended, broke, or sent what is not let through.
        error: What was not let through, if that was it.
    """

    was_first: bool
    error: PrivysealError | None = None


Filter = Callable[[bytes], bytes]


def _everything(data: bytes) -> bytes:
    return data


async def carry(
    first: ByteStream, second: ByteStream, *, to_second: Filter = _everything, to_first: Filter = _everything
) -> CarryEnd:
    """Carry bytes both ways until a side ends or breaks, then close both.

    Args:
        first: A stream.
        second: The other one.
        to_second: What is passed on of what the first has sent; its PrivysealError ends the carrying.
        to_first: Likewise.
    """
    ways = [
        asyncio.create_task(_pump(first, second, to_second)),
        asyncio.create_task(_pump(second, first, to_first)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        is_source, error = next(way.result() for way in ways if way.done())
        return CarryEnd(was_first=is_source is ways[0].done(), error=error)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        first.close()
        second.close()


async def _pump(source: ByteStream, sink: ByteStream, let_through: Filter) -> tuple[bool, PrivysealError | None]:
    """Carry bytes one way; whether the source ended it, or else the sink, and what was not let through."""
    while True:
        try:
            data = await source.read()
        except OSError:
            return True, None
        if not data:
            return True, None
        try:
            passed = let_through(data)
        except PrivysealError as error:
            return True, error
        try:
            if passed:
                await sink.write(passed)
        except OSError:
            return False, None
