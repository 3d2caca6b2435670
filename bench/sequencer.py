# SPDX-License-Identifier: Apache-2.0
"""The log's sequencer: entries a second with encoding, hashing, checkpoint and commit, on SQLite and on PostgreSQL.

Run by `make bench`. Nothing here asserts: it prints figures. Every commit is synced to disk, and head.checkpoint is
replaced behind it. PostgreSQL is measured if Debian's package is there, as it comes, without tuning.
"""

import asyncio
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from log_samples import intent_at, result_of
from postgres_server import PostgresServer, find_binaries, running_postgres
from privyseal.ports.store import Store, Tx
from privyseal.storage.durable_file import PosixFileSystem, replace_durably
from privyseal.storage.postgres import PostgresStore
from privyseal.storage.sqlite import SqliteStore
from privyseal.tlog.entry import encode_entry

ORIGIN = "log.example/bench"
KEY = Ed25519PrivateKey.from_private_bytes(b"b" * 32)
BATCH = 256
BATCHES = int(os.environ.get("BATCHES", "300"))
SIGNATURES = int(os.environ.get("SIGNATURES", "500"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A store, and the bytes that it takes on disk."""

    name: str
    store: Store
    size_bytes: Callable[[], Awaitable[int]]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def written(number: int) -> tuple[bytes, bytes]:
    """Intent and result of one signature, as a hub writes them."""
    intent = intent_at(1_700_000_000_000 + number, number)
    return encode_entry(intent), encode_entry(result_of(1_700_000_000_000 + number, number, intent))


#: Made beforehand: the facts of a use come from elsewhere, and cost more than their encoding.
INTENTS = tuple(intent_at(1_700_000_000_000 + number, number) for number in range(BATCH * 64))


def in_one(start: int) -> Callable[[Tx], Awaitable[None]]:
    """One operation that writes a whole batch: the items of a request."""

    async def operation(tx: Tx) -> None:
        for number in range(start, start + BATCH):
            await tx.append(encode_entry(INTENTS[number % len(INTENTS)]))

    return operation


def one(number: int) -> Callable[[Tx], Awaitable[int]]:
    async def operation(tx: Tx) -> int:
        return await tx.append(encode_entry(INTENTS[number % len(INTENTS)]))

    return operation


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"p50 {ordered[len(ordered) // 2] * 1e3:6.2f} ms, p99 {ordered[int(len(ordered) * 0.99)] * 1e3:6.2f} ms"


async def batches(opened: Opened, name: str, run: Callable[[int], Awaitable[object]]) -> None:
    for number in range(BATCHES // 4):  # a new database makes its files first
        await run(number * BATCH)
    before, seconds = await opened.size_bytes(), []
    cpu, start = time.process_time(), time.perf_counter()
    for number in range(BATCHES):
        begun = time.perf_counter()
        await run(number * BATCH)
        seconds.append(time.perf_counter() - begun)
    elapsed, entries = time.perf_counter() - start, BATCHES * BATCH
    cpu = time.process_time() - cpu
    grown = (await opened.size_bytes() - before) / entries
    print(
        f"{opened.name:10} {name:24} {entries / elapsed:8,.0f} entries/s, batch of {BATCH}: {percentiles(seconds)},"
        f" {cpu / entries * 1e6:4.1f} us CPU here and {grown:4.0f} bytes on disk an entry"
    )


async def signatures(opened: Opened) -> None:
    """What the record adds to one signature: intent, wait, result, wait."""
    seconds = []
    for number in range(SIGNATURES):
        begun = time.perf_counter()
        await opened.store.write(one(2 * number))
        await opened.store.write(one(2 * number + 1))
        seconds.append(time.perf_counter() - begun)
    print(f"{opened.name:10} record of one signature  {percentiles(seconds)}")


def fsyncs(folder: Path) -> None:
    """What the disk alone costs: one write and fsync, and one replaced head.checkpoint."""
    files, seconds, replaced = PosixFileSystem(), [], []
    descriptor = files.create(folder / "probe")
    for _ in range(SIGNATURES):
        files.write(descriptor, b"x" * 4096)
        begun = time.perf_counter()
        files.sync(descriptor)
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        replace_durably(files, folder / "probe.checkpoint", b"x" * 200)
        replaced.append(time.perf_counter() - begun)
    files.close(descriptor)
    print(f"the disk: fsync of 4 KiB   {percentiles(seconds)}; head.checkpoint replaced {percentiles(replaced)}")
    print("one signature has 2 commits: each at least one fsync of the database, and one replaced head.checkpoint")


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Opened]:
    path = folder / "hub.db"
    store = await SqliteStore.open(
        path, origin=ORIGIN, log_key=KEY, clock=now_ms, head_path=folder / "sqlite.checkpoint"
    )

    async def size_bytes() -> int:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.stat().st_size

    yield Opened(name="SQLite", store=store, size_bytes=size_bytes)
    await store.close()


@asynccontextmanager
async def postgresql(server: PostgresServer, folder: Path) -> AsyncIterator[Opened]:
    database = await server.make_database()
    store = await PostgresStore.open(
        server.url(database), origin=ORIGIN, log_key=KEY, clock=now_ms, head_path=folder / "postgres.checkpoint"
    )

    async def size_bytes() -> int:
        ((size,),) = await server.execute("SELECT pg_database_size(current_database())", database)
        return int(size)

    yield Opened(name="PostgreSQL", store=store, size_bytes=size_bytes)
    await store.close()


async def measure(opened: Opened) -> None:
    store = opened.store

    async def callers(start: int) -> None:
        await asyncio.gather(*(store.write(one(number)) for number in range(start, start + BATCH)))

    await batches(opened, "one operation", lambda start: store.write(in_one(start)))
    await batches(opened, f"{BATCH} callers at once", callers)
    await signatures(opened)


async def main() -> None:
    intent, result = written(1)
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs; intent {len(intent)}, result {len(result)} bytes"
    )
    with tempfile.TemporaryDirectory(prefix="privyseal-bench-") as name:
        folder = Path(name)
        fsyncs(folder)
        async with sqlite(folder) as opened:
            await measure(opened)
        if find_binaries() is None:
            print("PostgreSQL is not installed, and was not measured")
            return
        with running_postgres() as server:
            async with postgresql(server, folder) as opened:
                await measure(opened)


if __name__ == "__main__":
    asyncio.run(main())
