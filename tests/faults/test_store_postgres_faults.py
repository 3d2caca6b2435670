# SPDX-License-Identifier: Apache-2.0
"""The fault table of the PostgreSQL store: the server, or the way there, is lost before, in and after COMMIT.

After each, the store must say what it promised to say, go on without a restart where nothing is in doubt, and hold
every acknowledged write and each batch whole or not at all.
"""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postgres_proxy import CommitProxy, commit_proxy
from postgres_server import PostgresServer
from privyseal.errors import LogIntegrityError, PrivysealError, UnavailableError
from privyseal.ports.queue import Job, Lease, Request
from privyseal.ports.store import Tx
from privyseal.storage.durable_file import PosixFileSystem
from privyseal.storage.postgres import PostgresStore

pytestmark = pytest.mark.interop

ORIGIN = "log.example/faults"
KEY = Ed25519PrivateKey.from_private_bytes(b"f" * 32)
WRITING = "pid <> pg_backend_pid() AND application_name = 'privyseal hub'"


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


async def opened(url: str, folder: Path, *, doubt_seconds: float = 30.0) -> PostgresStore:
    return await PostgresStore.open(
        url,
        origin=ORIGIN,
        log_key=KEY,
        clock=lambda: 0,
        head_path=made(folder) / "head.checkpoint",
        doubt_seconds=doubt_seconds,
    )


def appending(*entries: bytes) -> Callable[[Tx], Awaitable[tuple[int, ...]]]:
    async def operation(tx: Tx) -> tuple[int, ...]:
        return tuple([await tx.append(entry) for entry in entries])

    return operation


def leasing(profile: str) -> Callable[[Tx], Awaitable[None]]:
    """A write that leaves the log as it is."""
    return lambda tx: tx.put_lease(Lease(token=profile, holder="hub", fence=1, expires_ms=0))


def requesting(name: str) -> Callable[[Tx], Awaitable[None]]:
    """Queue rows and log entries that must stand or fall together."""

    async def operation(tx: Tx) -> None:
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
        await tx.add_request(request, (Job(request_id=name, item=0, profile="demo", signed=b"signed", detail=b""),))
        for number in range(300):
            await tx.append(b"%s %d" % (name.encode(), number))

    return operation


async def batches(url: str, folder: Path) -> tuple[str, ...]:
    """Open again, which checks the tree, and see that each batch is there whole or not at all."""
    store = await opened(url, folder)
    try:
        entries = await store.read(lambda tx: tx.entries(0, 10_000))
        names = tuple(entry.split()[0].decode() for entry in entries[::300])
        assert entries == tuple(b"%s %d" % (name.encode(), number) for name in names for number in range(300))
        for name in ("first", "second", "third"):
            jobs = await store.read(lambda tx, name=name: tx.jobs(name))  # type: ignore[misc]
            assert len(jobs) == (name in names)
    finally:
        await store.close()
    return names


async def refused(store: PostgresStore, operation: Callable[[Tx], Awaitable[object]]) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        await store.write(operation)
    return caught.value


@pytest.fixture
async def database(postgres: PostgresServer) -> str:
    return await postgres.make_database()


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[CommitProxy]:
    with commit_proxy(postgres) as running:
        yield running


# -- COMMIT ---------------------------------------------------------------------------------------------------------


async def test_a_commit_whose_answer_is_lost_is_found(
    postgres: PostgresServer, proxy: CommitProxy, database: str, tmp_path: Path
) -> None:
    store = await opened(postgres.url(database, folder=proxy.folder), tmp_path)
    await store.write(requesting("first"))
    proxy.lose = "answer"

    await store.write(requesting("second"))  # it is durable, and the caller is told so
    proxy.lost.wait()
    assert store.head.size == 600
    assert (tmp_path / "head.checkpoint").read_text() == store.head.note
    await store.write(requesting("third"))
    await store.close()

    assert await batches(postgres.url(database), tmp_path) == ("first", "second", "third")


async def test_a_commit_that_never_arrived_is_told_apart(
    postgres: PostgresServer, proxy: CommitProxy, database: str, tmp_path: Path
) -> None:
    store = await opened(postgres.url(database, folder=proxy.folder), tmp_path)
    await store.write(requesting("first"))
    head = store.head
    proxy.lose = "commit"

    error = await refused(store, requesting("second"))

    assert (type(error), error.code) == (UnavailableError, "store.unavailable")
    assert store.head is head
    await store.write(requesting("second"))
    await store.close()
    assert await batches(postgres.url(database), tmp_path) == ("first", "second")


@pytest.mark.parametrize("lose", ["answer", "commit"])
async def test_a_lost_commit_without_entries_is_found_too(
    postgres: PostgresServer, proxy: CommitProxy, database: str, tmp_path: Path, lose: str
) -> None:
    store = await opened(postgres.url(database, folder=proxy.folder), tmp_path)
    proxy.lose = lose

    if lose == "answer":
        await store.write(leasing("demo"))
    else:
        assert (await refused(store, leasing("demo"))).code == "store.unavailable"

    assert (await store.read(lambda tx: tx.lease("demo")) is not None) == (lose == "answer")
    await store.close()


@pytest.mark.parametrize("lose", ["answer", "commit"])
async def test_what_nobody_can_tell_is_not_told(
    postgres: PostgresServer, proxy: CommitProxy, database: str, tmp_path: Path, lose: str
) -> None:
    store = await opened(postgres.url(database, folder=proxy.folder), tmp_path, doubt_seconds=0.5)
    await store.write(requesting("first"))
    head = store.head
    proxy.lose, proxy.closed = lose, True

    errors = [await refused(store, requesting("second")), await refused(store, requesting("third"))]
    proxy.closed = False
    errors.append(await refused(store, requesting("third")))

    assert [(type(error), error.code) for error in errors] == [(LogIntegrityError, "store.commit_unknown")] * 3
    assert store.head is head
    await store.close()
    committed = ("first", "second") if lose == "answer" else ("first",)
    assert await batches(postgres.url(database), tmp_path) == committed


async def test_a_commit_waits_for_its_standby(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    """A wait that an administrator cancels ends in a commit on one server: nobody may be told of it yet."""
    store = await opened(postgres.url(database), tmp_path)
    await store.write(requesting("first"))
    waiting = f"SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND {WRITING}"
    await postgres.execute("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
    await postgres.execute("SELECT pg_reload_conf()")
    try:
        write = asyncio.ensure_future(store.write(requesting("second")))
        first = await postgres.until(waiting, bool)
        await postgres.execute(f"SELECT pg_cancel_backend({first[0][0]})")
        # The cancelled wait is over, and another one begins.
        await postgres.until(waiting, lambda found: bool(found) and found != first)
        assert not write.done()
    finally:
        await postgres.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await postgres.execute("SELECT pg_reload_conf()")

    await write
    assert store.head.size == 600
    await store.close()


@pytest.mark.parametrize("step", ["create", "write", "sync", "rename", "sync_directory"])
async def test_a_head_file_that_cannot_be_replaced_stops_the_store(
    postgres: PostgresServer, database: str, tmp_path: Path, step: str
) -> None:
    class Failing(PosixFileSystem):
        armed = False

        def __getattribute__(self, name: str) -> object:
            if name == step and type(self).armed:
                raise OSError(5, "Input/output error")
            return super().__getattribute__(name)

    store = await PostgresStore.open(
        postgres.url(database),
        origin=ORIGIN,
        log_key=KEY,
        clock=lambda: 0,
        head_path=tmp_path / "head.checkpoint",
        files=Failing(),
    )
    head, Failing.armed = store.head, True

    errors = [await refused(store, requesting("first")), await refused(store, requesting("second"))]

    assert [error.code for error in errors] == ["store.commit_unknown"] * 2
    assert store.head is head
    await store.close()
    assert await batches(postgres.url(database), tmp_path) == ("first",)


# -- before COMMIT --------------------------------------------------------------------------------------------------


async def test_a_backend_that_dies_in_a_batch_loses_nothing(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    store = await opened(postgres.url(database), tmp_path)
    await store.write(requesting("first"))
    kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state LIKE '%in transaction' AND {WRITING}"

    def killed() -> None:
        assert asyncio.run(postgres.execute(kill)) == [(True,)]

    async def dying(tx: Tx) -> None:
        await requesting("second")(tx)
        await tx.entries(0, 1)  # writes what was appended
        in_thread(killed)

    error = await refused(store, dying)

    assert error.code == "store.unavailable"
    await store.write(requesting("third"))
    await store.close()
    assert await batches(postgres.url(database), tmp_path) == ("first", "third")


def in_thread(work: Callable[[], None]) -> None:
    """Run something with an event loop of its own, while this thread's stands still."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


async def test_a_crashed_server_is_used_again_without_a_restart_of_the_hub(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    store = await opened(postgres.url(database), tmp_path)
    await store.write(requesting("first"))
    assert await store.read(lambda tx: tx.entries(0, 1)) == (b"first 0",)

    postgres.stop("immediate")
    assert (await refused(store, requesting("second"))).code == "store.unavailable"
    with pytest.raises(UnavailableError):
        await store.read(lambda tx: tx.entries(0, 1))
    postgres.start()

    assert await store.read(lambda tx: tx.entries(0, 1)) == (b"first 0",)
    await store.write(requesting("second"))
    await store.close()
    assert await batches(postgres.url(database), tmp_path) == ("first", "second")


async def test_a_server_that_crashed_between_two_batches_is_not_even_noticed(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    store = await opened(postgres.url(database), tmp_path)
    await store.write(requesting("first"))
    postgres.stop("immediate")
    postgres.start()

    await store.write(requesting("second"))
    await store.close()
    assert await batches(postgres.url(database), tmp_path) == ("first", "second")


async def test_a_value_that_the_database_cannot_hold_ends_its_operation_alone(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    store = await opened(postgres.url(database), tmp_path)

    outcomes = await asyncio.gather(
        store.write(appending(b"one")),
        store.write(leasing("nul \0 in a name")),
        store.write(appending(b"two")),
        return_exceptions=True,
    )

    assert (outcomes[0], outcomes[2]) == ((0,), (1,))
    assert isinstance(outcomes[1], PrivysealError)
    assert outcomes[1].code == "store.value"
    read = await asyncio.gather(
        store.read(lambda tx: tx.lease("nul \0 in a name")),
        store.read(lambda tx: tx.entries(0, 2)),
        return_exceptions=True,
    )
    assert isinstance(read[0], PrivysealError)
    assert read[1] == (b"one", b"two")
    await store.close()


# -- the server's disk ------------------------------------------------------------------------------------------------


async def test_a_server_without_room_takes_nothing_until_there_is_room_again(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    """The kernel lets the server's processes extend no file beyond a size, as on a disk that is full."""
    store = await opened(postgres.url(database), tmp_path)
    await store.write(requesting("first"))
    head = store.head
    large = [random.Random(number).randbytes(60_000) for number in range(400)]
    found = await postgres.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND {WRITING}")
    backends = [pid for (pid,) in found]
    assert backends
    # A segment of the WAL has 16 MiB, and is extended to that at once.
    postgres.limit_files(backends, 17 << 20)

    error = await refused(store, appending(*large))

    assert (type(error), error.code) == (UnavailableError, "store.unavailable")
    assert "could not extend" in error.message
    assert store.head == head
    await store.write(requesting("second"))  # small ones still fit
    postgres.limit_files(backends, None)
    assert await store.write(appending(*large)) == tuple(range(600, 1000))
    assert store.head.size == 1000
    await store.close()
    again = await opened(postgres.url(database), tmp_path)
    assert (await again.read(lambda tx: tx.entries(600, 400))) == tuple(large)
    await again.close()
