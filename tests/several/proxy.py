# SPDX-License-Identifier: Apache-2.0
"""A way between two programs on loopback that can be broken: cut, silent in one direction, slow, or led elsewhere.

What is silent is not lost: as with a real partition, TCP delivers it once the way is whole again, unless an end has
given up by then. A trap does something when the n-th message passes.
"""

import asyncio
import contextlib
import socket
import struct
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "BOTH",
    "Address",
    "Framing",
    "Proxy",
    "Trap",
    "Ways",
    "pieces",
    "postgres_messages",
    "running_proxy",
    "running_ways",
    "tls_records",
]

#: A port of this machine, or the path of a Unix socket.
Address = int | Path
#: Cuts what one side sends into messages.
Framing = Callable[[asyncio.StreamReader], AsyncIterator[bytes]]
BOTH = ("there", "back")
_PIECE_BYTES = 64 * 1024
_START_SECONDS = 30


async def pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """As they come."""
    while piece := await reader.read(_PIECE_BYTES):
        yield piece


async def tls_records(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """RFC 8446 §5.1: type, version, length, content."""
    while True:
        head = await reader.readexactly(5)
        yield head + await reader.readexactly(int.from_bytes(head[3:]))


async def postgres_messages(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Of one side that has got past its first message; that one has no type, which no type is 0 like its length."""
    first = await reader.readexactly(1)
    if first == b"\0":
        rest = await reader.readexactly(3)
        yield first + rest + await reader.readexactly(int.from_bytes(rest) - 4)
        first = await reader.readexactly(1)
    while True:
        length = await reader.readexactly(4)
        yield first + length + await reader.readexactly(struct.unpack("!I", length)[0] - 4)
        first = await reader.readexactly(1)


#: Messages that are delayed at the same time; more of them hold the sender up.
_ON_THE_WAY = 4096


@dataclass(kw_only=True)
class Trap:
    """Does something once.

    Attributes:
        direction: Of the messages that count, as seen from who dials: `there` or `back`.
        counts: Which of them.
        number: Which of those, from 1 on.
        do: What happens before that one is carried on; it is, unless `do` has cut the way or made it silent.
        sprung: Set once it has happened.
    """

    direction: str
    counts: Callable[[bytes], bool]
    number: int
    do: Callable[[], None]
    sprung: threading.Event = field(default_factory=threading.Event)
    seen: int = 0

    def look(self, direction: str, message: bytes) -> None:
        if direction == self.direction and not self.sprung.is_set() and self.counts(message):
            self.seen += 1
            if self.seen == self.number:
                self.do()
                self.sprung.set()


class Proxy:
    """One way, with any number of connections on it; used from any thread.

    Attributes:
        target: Where it leads.
        delay_seconds: How long each message is on its way.
        trap: What waits for a message, if anything does.
    """

    def __init__(self, place: Address, framing: Framing) -> None:
        self.place = place
        self.target: Address = 0
        self.delay_seconds = 0.0
        self.trap: Trap | None = None
        self._framing = framing
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._ways = {direction: asyncio.Event() for direction in BOTH}
        self._carrying: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def silence(self, *directions: str) -> None:
        """From now on nothing arrives that goes this way; connections stand, and can be made."""
        self._soon(lambda: self.silence_within(*(directions or BOTH)))

    def silence_within(self, *directions: str) -> None:
        """The same, for a trap."""
        for direction in directions:
            self._ways[direction].clear()

    def cut(self) -> None:
        """End every connection, and let none be made."""

        def end() -> None:
            self._closed = True
            self.hang_up_within()

        self._soon(end)

    def heal(self) -> None:
        """Carry on, what was held back first."""

        def open_again() -> None:
            self._closed = False
            self._open()

        self._soon(open_again)

    def lead_to(self, target: Address) -> None:
        """Lead elsewhere; who is connected has to come again."""

        def turn() -> None:
            self.target = target
            self.hang_up_within()

        self._soon(turn)

    def hang_up_within(self) -> None:
        """End every connection, for a trap."""
        for writer in self._writers:
            writer.transport.abort()

    def _soon(self, work: Callable[[], None]) -> None:
        """Done when this returns."""
        done = threading.Event()

        def do() -> None:
            work()
            done.set()

        self._loop.call_soon_threadsafe(do)
        assert done.wait(_START_SECONDS)

    # -- in the proxy's own thread ------------------------------------------------------------------------------

    def run(self, ready: threading.Event) -> None:
        """Serve until `stop`."""
        asyncio.set_event_loop(self._loop)
        self._open()
        server = self._loop.run_until_complete(self._listen())
        ready.set()
        self._loop.run_forever()
        server.close()
        self.hang_up_within()
        for task in self._carrying:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._carrying, return_exceptions=True))
        self._loop.close()

    def _open(self) -> None:
        for way in self._ways.values():
            way.set()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _listen(self) -> asyncio.Server:
        if isinstance(self.place, int):
            return await asyncio.start_server(self._take, "127.0.0.1", self.place, backlog=2048)
        return await asyncio.start_unix_server(self._take, self.place, backlog=2048)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, far_writer)
        self._writers.update(ends)
        carrying = [
            self._spawn(self._carry(reader, far_writer, "there")),
            self._spawn(self._carry(far_reader, writer, "back")),
        ]
        await asyncio.wait(carrying)
        for end in ends:
            self._writers.discard(end)
            end.transport.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, int):
            return await asyncio.open_connection("127.0.0.1", self.target)
        return await asyncio.open_unix_connection(self.target)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        return task

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_ON_THE_WAY)
        reading = self._spawn(self._read(reader, on_the_way))
        with suppress(OSError):
            while (arrived := await on_the_way.get())[1]:
                due_s, message = arrived
                if self.trap is not None:
                    self.trap.look(direction, message)
                await asyncio.sleep(due_s - self._loop.time())
                await self._ways[direction].wait()
                if writer.transport.is_closing():
                    break
                writer.write(message)
                await writer.drain()
        reading.cancel()
        await self._ways[direction].wait()  # nor does an end arrive
        with suppress(OSError):
            if writer.can_write_eof() and not writer.transport.is_closing():
                writer.write_eof()

    async def _read(self, reader: asyncio.StreamReader, on_the_way: "asyncio.Queue[tuple[float, bytes]]") -> None:
        """Messages with the time at which they arrive: each is delayed, and none waits for the one before it."""
        with suppress(OSError, asyncio.IncompleteReadError):
            async for message in self._framing(reader):
                await on_the_way.put((self._loop.time() + self.delay_seconds, message))
        await on_the_way.put((0.0, b""))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def running_proxy(framing: Framing = pieces, *, unix: int | None = None) -> Iterator[Proxy]:
    """A proxy on a free port; with `unix` on a socket that PostgreSQL's clients look for, by that port's number."""
    with tempfile.TemporaryDirectory(prefix="privyseal-way-") as folder:
        place: Address = free_port() if unix is None else Path(folder) / f".s.PGSQL.{unix}"
        proxy, ready = Proxy(place, framing), threading.Event()
        thread = threading.Thread(target=proxy.run, args=(ready,), name=f"way {place}")
        thread.start()
        assert ready.wait(_START_SECONDS)
        try:
            yield proxy
        finally:
            proxy.stop()
            thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """The ways to and from one hub: to its database, from the agent, and from clients."""

    database: Proxy
    link: Proxy
    clients: Proxy

    @property
    def all(self) -> tuple[Proxy, ...]:
        return self.database, self.link, self.clients

    def heal(self) -> None:
        for way in self.all:
            way.heal()


@contextmanager
def running_ways(hubs: int, server: Path) -> Iterator[tuple[Ways, ...]]:
    """Ways for so many hubs to the PostgreSQL server at this socket; where hubs listen is said later."""
    port = int(server.suffix.removeprefix("."))
    with contextlib.ExitStack() as stack:

        def begin(framing: Framing, unix: int | None = None) -> Proxy:
            return stack.enter_context(running_proxy(framing, unix=unix))

        found = tuple(
            Ways(database=begin(postgres_messages, port), link=begin(tls_records), clients=begin(pieces))
            for _ in range(hubs)
        )
        for ways in found:
            ways.database.lead_to(server)
        yield found
