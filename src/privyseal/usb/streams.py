# SPDX-License-Identifier: Apache-2.0
"""A stream of bytes to the other side, whatever carries it."""

import asyncio
import contextlib
import socket
from typing import Final, Protocol

__all__ = ["ByteStream", "SocketStream", "pump"]

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


async def pump(source: ByteStream, sink: ByteStream) -> int:
    """Carry bytes one way until the source ends; how many.

    Raises:
        OSError: A side broke.
    """
    carried = 0
    while data := await source.read():
        await sink.write(data)
        carried += len(data)
    return carried
