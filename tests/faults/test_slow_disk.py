# SPDX-License-Identifier: Apache-2.0
"""A disk that takes its time: nobody is answered before it is done, for that would be signed without a record."""

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.ports.store import Tx
from privyseal.storage.durable_file import PosixFileSystem
from privyseal.storage.sqlite import SqliteStore


class SlowDisk(PosixFileSystem):
    """Stands still at one step, once, until it is told to go on."""

    def __init__(self) -> None:
        self.step = ""
        self.reached = threading.Event()
        self.goes_on = threading.Event()

    def take(self, step: str) -> None:
        if step == self.step:
            self.step = ""
            self.reached.set()
            assert self.goes_on.wait(60)

    def sync(self, descriptor: int) -> None:
        self.take("sync")
        super().sync(descriptor)

    def sync_directory(self, path: Path) -> None:
        self.take("sync_directory")
        super().sync_directory(path)

    def connect(self, path: str) -> sqlite3.Connection:
        disk = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                disk.take(sql)
                return super().execute(sql, parameters)

        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)


def appending(entry: bytes) -> Callable[[Tx], Awaitable[int]]:
    return lambda tx: tx.append(entry)


@pytest.mark.parametrize("step", ["COMMIT", "sync", "sync_directory"])
async def test_nobody_is_answered_before_a_slow_disk_is_done(tmp_path: Path, step: str) -> None:
    disk, path = SlowDisk(), tmp_path / "head.checkpoint"
    store = await SqliteStore.open(
        tmp_path / "hub.db",
        origin="log.example/slow",
        log_key=Ed25519PrivateKey.from_private_bytes(b"s" * 32),
        clock=lambda: 0,
        head_path=path,
        files=disk,
        connect=disk.connect,
    )
    await store.write(appending(b"before"))
    head = store.head
    disk.step = step

    first = asyncio.create_task(store.write(appending(b"first")))
    await asyncio.to_thread(disk.reached.wait)
    second = asyncio.create_task(store.write(appending(b"second")))
    for _ in range(100):
        await asyncio.sleep(0)

    assert not first.done()
    assert not second.done()
    assert store.head is head
    # It may be in its place, but not durably.
    assert step == "sync_directory" or path.read_text() == head.note
    disk.goes_on.set()
    assert (await first, await second) == (1, 2)
    assert path.read_text() == store.head.note
    assert await store.read(lambda tx: tx.entries(0, 10)) == (b"before", b"first", b"second")
    await store.close()
