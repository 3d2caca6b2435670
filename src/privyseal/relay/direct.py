# SPDX-License-Identifier: Apache-2.0
"""A lease without a hub in its way: TCP from the client to a port of the agent.

A piece is preceded by its length in four bytes (big-endian). The first piece names the request, in clear; whoever waits
for that request at the agent gets the connection, and judges it as any other pipe. Everybody else is hung up on.
"""

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from privyseal.errors import ConfigError
from privyseal.ports.pipe import MAX_PIECE_BYTES, Pipe

__all__ = ["FIRST_SECONDS", "DirectListener", "StreamPipe", "dial_direct", "split_place"]

#: How long a stranger may take to say what he wants.
FIRST_SECONDS: Final = 5.0
_MOST_STRANGERS: Final = 32
#: Connections for one request that nobody has judged yet.
_MOST_UNJUDGED: Final = 4
_HEAD_BYTES: Final = 4
_ID: Final = re.compile(rb"[0-9a-f]{64}")
_UNSENT_BYTES: Final = 4 * MAX_PIECE_BYTES


def split_place(text: str) -> tuple[str, int]:
    """HOST:PORT, or [IPV6]:PORT, as host and port.

    Raises:
        ConfigError: `config.address`.
    """
    host, _, port = text.rpartition(":")
    if not host.strip("[]") or not port.isascii() or not port.isdecimal() or not 0 < int(port) <= 65_535:
        raise ConfigError("config.address", f"{text!r} is not HOST:PORT, for example 192.0.2.7:8446")
    return host.removeprefix("[").removesuffix("]"), int(port)


class StreamPipe:
    """A `Pipe` over asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        writer.transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        connected = writer.get_extra_info("socket")
        if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send(self, data: bytes) -> None:
        """Send a piece; it returns when there is room for more."""
        self._writer.write(len(data).to_bytes(_HEAD_BYTES, "big") + data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """The next piece; empty at the end."""
        return await self.receive_most(MAX_PIECE_BYTES)

    async def receive_most(self, most_bytes: int) -> bytes:
        """The same; a longer one is an error.

        Raises:
            OSError: the connection broke, or ended within a piece.
        """
        try:
            head = await self._reader.readexactly(_HEAD_BYTES)
        except asyncio.IncompleteReadError:
            return b""
        length = int.from_bytes(head, "big")
        if not 1 <= length <= most_bytes:
            raise ConnectionError(f"a piece of {length} bytes was announced")
        try:
            return await self._reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the connection ended within a piece") from error

    def close(self) -> None:
        """End both ways; what was sent still goes out, unless the other side does not take it."""
        if self._writer.transport.get_write_buffer_size():
            self._writer.transport.abort()
        self._writer.close()

    async def closed(self) -> None:
        """Wait until nothing is left of it; after `close`."""
        with suppress(OSError):
            await self._writer.wait_closed()


async def dial_direct(host: str, port: int, request_id: str) -> StreamPipe:
    """A pipe to the agent that listens there, if it waits for this request.

    Raises:
        OSError: nobody listens there, or it cannot be reached.
    """
    pipe = StreamPipe(*await asyncio.open_connection(host, port))
    await pipe.send(request_id.encode("ascii"))
    return pipe


class DirectListener:
    """The agent's port. What comes is given to whoever expects it, and costs little otherwise.

    Attributes:
        refused: Connections that were hung up on, by reason: `many`, `late` (nobody waited for its request, or it
            did not say which), `unknown` (what it says names no request, or enough others were before it).
    """

    def __init__(self, *, first_seconds: float = FIRST_SECONDS) -> None:
        self._first_seconds: Final = first_seconds
        self._expected: dict[str, asyncio.Queue[Pipe]] = {}
        self._news = asyncio.Event()
        self._strangers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.refused: Final[Counter[str]] = Counter()

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which is another one if 0 was asked for.

        Raises:
            ConfigError: `listen.failed`.
        """
        try:
            self._server = await asyncio.start_server(self._came, host, port)
        except OSError as error:
            raise ConfigError(
                "listen.failed",
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint="another process uses the port? Change `listen` under [usb] in agent.toml",
            ) from error
        listening: int = self._server.sockets[0].getsockname()[1]
        return listening

    @contextmanager
    def expecting(self, request_id: str) -> Iterator["asyncio.Queue[Pipe]"]:
        """Where connections for this request arrive while the block runs; whoever takes one closes it."""
        queue: asyncio.Queue[Pipe] = asyncio.Queue(_MOST_UNJUDGED)
        self._expected[request_id] = queue
        self._news.set()  # a client that was quicker than the agent waits for this
        self._news = asyncio.Event()
        try:
            yield queue
        finally:
            if self._expected.get(request_id) is queue:
                del self._expected[request_id]
            while not queue.empty():
                queue.get_nowait().close()

    async def stop(self) -> None:
        """Listen no more; connections that were taken are whoever's took them."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._strangers):
            task.cancel()
        await asyncio.gather(*self._strangers, return_exceptions=True)

    def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipe = StreamPipe(reader, writer)
        if len(self._strangers) >= _MOST_STRANGERS:
            self._refuse(pipe, "many")
            return
        task = asyncio.create_task(self._hear(pipe))
        self._strangers.add(task)
        task.add_done_callback(self._strangers.discard)

    async def _hear(self, pipe: StreamPipe) -> None:
        """Learn which request it is for, and pass it on."""
        try:
            async with asyncio.timeout(self._first_seconds):
                said = await pipe.receive_most(64)
                queue = await self._queue(said.decode("ascii")) if _ID.fullmatch(said) else None
        except asyncio.CancelledError:
            pipe.close()
            raise
        except OSError:
            self._refuse(pipe, "late")
            return
        if queue is None or queue.full():
            self._refuse(pipe, "unknown")
        else:
            queue.put_nowait(pipe)

    async def _queue(self, request_id: str) -> "asyncio.Queue[Pipe]":
        while (queue := self._expected.get(request_id)) is None:
            await self._news.wait()
        return queue

    def _refuse(self, pipe: StreamPipe, reason: str) -> None:
        self.refused[reason] += 1
        pipe.close()
