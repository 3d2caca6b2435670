# SPDX-License-Identifier: Apache-2.0
"""The fault table of the SQLite store: each step of a commit fails, or fails and yet took effect.

After each, the store must say what it promised to say, and once opened again hold every acknowledged write and
each batch whole or not at all. The same is checked for the files as they lie at each step: what kill -9 leaves.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import LogIntegrityError, PrivysealError, UnavailableError
from privyseal.ports.queue import Job, Request
from privyseal.ports.store import Tx
from privyseal.storage.durable_file import PosixFileSystem
from privyseal.storage.sqlite import SqliteStore
from privyseal.tlog.proof import inclusion_proof, inclusion_tiles, verify_inclusion
from privyseal.tlog.tree import leaf_hash

ORIGIN = "log.example/faults"
KEY = Ed25519PrivateKey.from_private_bytes(b"f" * 32)
BATCH = 3
#: So that the batch under fault completes a tile of level 0, and a node of level 1 is written.
ACKNOWLEDGED = 255

BEFORE_COMMIT = (
    "BEGIN IMMEDIATE",
    "SELECT 1 FROM log_head",
    "SAVEPOINT",
    "INSERT INTO log_entry",
    "INSERT INTO log_node",
    "INSERT INTO request",
    "INSERT INTO job (",
    "INSERT INTO job_preimage",
    "RELEASE",
    "UPDATE log_head",
    "INSERT INTO log_checkpoint",
)
FILE_STEPS = ("create", "write", "sync", "close", "rename", "sync_directory")
FROM_COMMIT_ON = ("COMMIT", *FILE_STEPS)


class Steps:
    """Watches the steps of a commit; one of them can be made to fail."""

    def __init__(self) -> None:
        self.fail_at = ""
        self.persist = False
        self.watch: Callable[[str], None] = lambda _step: None

    def take(self, step: str, act: Callable[[], Any], error: Exception) -> Any:
        self.watch(step)
        if not self.fail_at or not step.startswith(self.fail_at):
            return act()
        if self.persist:
            act()
        raise error


def connector(steps: Steps) -> Callable[[str], sqlite3.Connection]:
    class Connection(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            error = sqlite3.OperationalError("disk I/O error")
            cursor: sqlite3.Cursor = steps.take(sql, lambda: super(Connection, self).execute(sql, parameters), error)
            return cursor

        def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
            error = sqlite3.OperationalError("disk I/O error")
            rows = list(parameters)
            cursor: sqlite3.Cursor = steps.take(sql, lambda: super(Connection, self).executemany(sql, rows), error)
            return cursor

    return lambda path: sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)


class FaultyFiles(PosixFileSystem):
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def _take(self, step: str, act: Callable[[], Any]) -> Any:
        return self._steps.take(step, act, OSError(5, "Input/output error"))

    def create(self, path: Path) -> int:
        descriptor: int = self._take("create", lambda: super(FaultyFiles, self).create(path))
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        # Persisted in part is what a full disk does.
        part = data[: len(data) // 2] if self._steps.fail_at == "write" else data
        self._take("write", lambda: super(FaultyFiles, self).write(descriptor, part))

    def sync(self, descriptor: int) -> None:
        self._take("sync", lambda: super(FaultyFiles, self).sync(descriptor))

    def close(self, descriptor: int) -> None:
        self._take("close", lambda: super(FaultyFiles, self).close(descriptor))

    def rename(self, source: Path, target: Path) -> None:
        self._take("rename", lambda: super(FaultyFiles, self).rename(source, target))

    def sync_directory(self, path: Path) -> None:
        self._take("sync_directory", lambda: super(FaultyFiles, self).sync_directory(path))


async def opened(folder: Path, steps: Steps | None = None) -> SqliteStore:
    steps = steps or Steps()
    return await SqliteStore.open(
        folder / "hub.db",
        origin=ORIGIN,
        log_key=KEY,
        clock=lambda: 0,
        head_path=folder / "head.checkpoint",
        connect=connector(steps),
        files=FaultyFiles(steps),
    )


def appending(*entries: bytes) -> Callable[[Tx], Awaitable[None]]:
    async def operation(tx: Tx) -> None:
        for entry in entries:
            await tx.append(entry)

    return operation


def requesting(name: str) -> Callable[[Tx], Awaitable[None]]:
    """A batch: queue rows and log entries that must stand or fall together."""

    async def operation(tx: Tx) -> None:
        job = Job(request_id=name, item=0, profile="demo", signed=b"signed", detail=b"")
        request = Request(
            id=name,
            client="build-1",
            idempotency_key=name,
            profile="demo",
            envelope=b"envelope",
            created_ms=0,
            not_after_ms=1,
            queued_ms=1,
            priority=1,
        )
        await tx.add_request(request, (job,))
        for number in range(BATCH):
            await tx.append(b"%s %d" % (name.encode(), number))

    return operation


async def started(folder: Path, steps: Steps | None = None) -> SqliteStore:
    store = await opened(folder, steps)
    await store.write(appending(*(b"entry %d" % number for number in range(ACKNOWLEDGED))))
    return store


async def batches(folder: Path) -> tuple[str, ...]:
    """Open again and check all of it; the batches that are there."""
    store = await opened(folder)
    try:
        entries = await store.read(lambda tx: tx.entries(0, 10_000))
        assert entries[:ACKNOWLEDGED] == tuple(b"entry %d" % number for number in range(ACKNOWLEDGED))
        rest = entries[ACKNOWLEDGED:]
        names = tuple(entry.split()[0].decode() for entry in rest[::BATCH])
        assert rest == tuple(b"%s %d" % (name.encode(), number) for name in names for number in range(BATCH))
        for name in ("first", "second", "third"):
            jobs = await store.read(lambda tx, name=name: tx.jobs(name))  # type: ignore[misc]
            assert len(jobs) == (name in names)
        await check_inclusion(store, entries)
    finally:
        await store.close()
    return names


async def check_inclusion(store: SqliteStore, entries: tuple[bytes, ...]) -> None:
    head = store.head
    assert head.size == len(entries)
    for index in {0, 254, head.size - 1}:
        tiles = {}
        for tile in inclusion_tiles(index, head.size):
            tiles[tile] = await store.read(
                lambda tx, tile=tile: tx.tile(tile.level, tile.index, tile.width)  # type: ignore[misc]
            )
        verify_inclusion(
            leaf=leaf_hash(entries[index]),
            index=index,
            size=head.size,
            proof=inclusion_proof(index, head.size, tiles),
            root=head.root,
        )


async def refused(store: SqliteStore, name: str) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        await store.write(requesting(name))
    return caught.value


@pytest.mark.parametrize("persist", [False, True], ids=["failed", "failed but persisted"])
@pytest.mark.parametrize("step", BEFORE_COMMIT)
async def test_a_fault_before_commit_loses_nothing(tmp_path: Path, step: str, *, persist: bool) -> None:
    steps = Steps()
    store = await started(tmp_path, steps)
    head = store.head
    steps.fail_at, steps.persist = step, persist

    error = await refused(store, "first")

    assert isinstance(error, UnavailableError)
    assert error.code == "store.unavailable"
    assert store.head is head
    steps.fail_at = ""
    assert await store.read(lambda tx: tx.jobs("first")) == ()
    await store.write(requesting("second"))
    await store.close()
    assert await batches(tmp_path) == ("second",)


@pytest.mark.parametrize("persist", [False, True], ids=["failed", "failed but persisted"])
@pytest.mark.parametrize("step", FROM_COMMIT_ON)
async def test_a_fault_from_commit_on_stops_the_store(tmp_path: Path, step: str, *, persist: bool) -> None:
    steps = Steps()
    store = await started(tmp_path, steps)
    head = store.head
    steps.fail_at, steps.persist = step, persist

    errors = [await refused(store, "first")]
    steps.fail_at = ""
    errors.append(await refused(store, "second"))

    assert [(type(error), error.code) for error in errors] == [(LogIntegrityError, "store.commit_unknown")] * 2
    assert store.head is head
    await store.close()
    committed = ("first",) if step != "COMMIT" or persist else ()
    assert await batches(tmp_path) == committed
    again = await opened(tmp_path)
    await again.write(requesting("third"))
    await again.close()
    assert await batches(tmp_path) == (*committed, "third")


@pytest.mark.parametrize("persist", [False, True], ids=["failed", "failed but persisted"])
async def test_what_may_not_be_committed_is_not_read(tmp_path: Path, *, persist: bool) -> None:
    steps = Steps()
    store = await started(tmp_path, steps)
    steps.fail_at, steps.persist = "COMMIT", persist
    await refused(store, "first")
    steps.fail_at = ""

    if persist:
        with pytest.raises(LogIntegrityError) as caught:
            await store.read(lambda tx: tx.jobs("first"))
        assert caught.value.code == "store.commit_unknown"
    else:  # the rollback worked: what is read now is the state before
        assert await store.read(lambda tx: tx.jobs("first")) == ()
    await store.close()


async def test_a_failing_rollback_is_made_up_for(tmp_path: Path) -> None:
    class TwoFaults(Steps):
        def take(self, step: str, act: Callable[[], Any], error: Exception) -> Any:
            if self.fail_at and step == "ROLLBACK":
                raise error
            return super().take(step, act, error)

    steps = TwoFaults()
    store = await started(tmp_path, steps)
    steps.fail_at = "UPDATE log_head"

    first = await refused(store, "first")
    with pytest.raises(UnavailableError):
        await store.read(lambda tx: tx.jobs("first"))
    steps.fail_at = ""

    assert first.code == "store.unavailable"
    assert await store.read(lambda tx: tx.jobs("first")) == ()
    await store.write(requesting("second"))
    await store.close()
    assert await batches(tmp_path) == ("second",)


async def test_a_full_database_takes_no_batch_by_half(tmp_path: Path) -> None:
    connections: list[sqlite3.Connection] = []

    def connect(path: str) -> sqlite3.Connection:
        connections.append(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
        return connections[0]

    store = await SqliteStore.open(
        tmp_path / "hub.db",
        origin=ORIGIN,
        log_key=KEY,
        clock=lambda: 0,
        head_path=tmp_path / "head.checkpoint",
        connect=connect,
    )
    await store.write(appending(*(b"entry %d" % number for number in range(ACKNOWLEDGED))))
    head = store.head
    (pages,) = connections[0].execute("PRAGMA page_count").fetchone()
    connections[0].execute(f"PRAGMA max_page_count = {pages + 2}")

    with pytest.raises(UnavailableError) as caught:
        await store.write(appending(*(b"x" * 4096 for _ in range(10))))
    connections[0].execute("PRAGMA max_page_count = 100000")

    assert caught.value.code == "store.unavailable"
    assert store.head is head
    await store.write(requesting("first"))
    await store.close()
    assert await batches(tmp_path) == ("first",)


async def test_all_callers_of_a_failed_batch_hear_of_it(tmp_path: Path) -> None:
    steps = Steps()
    store = await started(tmp_path, steps)
    steps.fail_at = "COMMIT"

    outcomes = await asyncio.gather(*(store.write(appending(b"entry")) for _ in range(20)), return_exceptions=True)

    assert {outcome.code for outcome in outcomes if isinstance(outcome, PrivysealError)} == {"store.commit_unknown"}
    assert len({id(outcome) for outcome in outcomes}) == 20
    await store.close()


async def test_the_files_at_every_step_open_again(tmp_path: Path) -> None:
    steps = Steps()
    live = tmp_path / "live"
    live.mkdir()
    store = await started(live, steps)
    await store.write(requesting("first"))
    taken: list[tuple[str, Path]] = []

    def keep(step: str) -> None:
        copy = tmp_path / f"copy-{len(taken)}"
        # Without hub.db-shm: it is rebuilt, and a copy of it in use would not be what a dead process leaves.
        shutil.copytree(live, copy, ignore=shutil.ignore_patterns("*-shm"))
        taken.append((step, copy))

    steps.watch = keep
    await store.write(requesting("second"))
    keep("acknowledged")
    steps.watch = lambda _step: None
    await store.close()

    seen = [step for step, _ in taken]
    committed = seen.index("COMMIT")
    assert {step for step in seen if step in FILE_STEPS} == set(FILE_STEPS)
    for number, (_, copy) in enumerate(taken):
        assert await batches(copy) == (("first", "second") if number > committed else ("first",))


@pytest.fixture
def power_loss(tmp_path: Path) -> Iterator[Path]:
    """A folder whose store was never closed: its last commits stand in the WAL alone."""
    folder = tmp_path / "power-loss"
    folder.mkdir()
    return_to = asyncio.new_event_loop()
    with closing(return_to):
        store = return_to.run_until_complete(started(folder))
        acknowledged = (folder / "hub.db-wal").stat().st_size
        return_to.run_until_complete(store.write(requesting("first")))
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*-shm"))
        (copy / "acknowledged").write_text(str(acknowledged))
        return_to.run_until_complete(store.close())
        yield copy


def test_a_medium_that_forgot_an_acknowledged_commit_is_noticed(power_loss: Path, tmp_path: Path) -> None:
    wal = (power_loss / "hub.db-wal").read_bytes()
    acknowledged = int((power_loss / "acknowledged").read_text())
    codes = []
    for number, end in enumerate(range(acknowledged, len(wal), 4096 + 24)):
        copy = tmp_path / f"cut-{number}"
        shutil.copytree(power_loss, copy)
        (copy / "hub.db-wal").write_bytes(wal[:end])
        with pytest.raises(LogIntegrityError) as caught:
            asyncio.run(opened(copy))
        codes.append(caught.value.code)

    assert set(codes) == {"log.rollback"}
    assert len(codes) > 2
