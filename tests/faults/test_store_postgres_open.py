# SPDX-License-Identifier: Apache-2.0
"""What the PostgreSQL store opens and what it refuses, and several hubs over one database."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from postgres_server import PASSWORD, USER, PostgresServer
from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.ports.queue import Job, JobState, Request
from privyseal.ports.store import Tx
from privyseal.storage.postgres import PostgresStore
from privyseal.storage.schema import REVISION
from privyseal.tlog.proof import inclusion_proof, inclusion_tiles, verify_inclusion
from privyseal.tlog.tree import leaf_hash

pytestmark = pytest.mark.interop

ORIGIN = "log.example/open"
KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


async def opened(url: str, folder: Path, *, clock_ms: int = 0, key: Ed25519PrivateKey = KEY) -> PostgresStore:
    return await PostgresStore.open(
        url, origin=ORIGIN, log_key=key, clock=lambda: clock_ms, head_path=made(folder) / "head.checkpoint"
    )


def appending(*entries: bytes) -> Callable[[Tx], Awaitable[tuple[int, ...]]]:
    async def operation(tx: Tx) -> tuple[int, ...]:
        return tuple([await tx.append(entry) for entry in entries])

    return operation


async def refusal(url: str, folder: Path) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        await opened(url, folder)
    return caught.value


async def with_entries(url: str, folder: Path, *entries: bytes) -> None:
    store = await opened(url, folder)
    for entry in entries:
        await store.write(appending(entry))
    await store.close()


@pytest.fixture
async def database(postgres: PostgresServer) -> str:
    return await postgres.make_database()


# -- several hubs ---------------------------------------------------------------------------------------------------


async def test_hubs_that_start_at_once_make_one_database(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    url = postgres.url(database)

    stores = await asyncio.gather(*(opened(url, tmp_path / str(number)) for number in range(4)))

    assert {store.head.note for store in stores} == {stores[0].head.note}
    assert await postgres.execute("SELECT version_num FROM privyseal_schema", database) == [(REVISION,)]
    for store in stores:
        await store.close()


async def test_two_hubs_append_to_one_log(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    url = postgres.url(database)
    stores = [await opened(url, tmp_path / name) for name in ("a", "b")]

    async def append_many(name: bytes, store: PostgresStore) -> list[tuple[int, bytes]]:
        written = []
        for number in range(60):
            entries = [b"%s %d %d" % (name, number, part) for part in range(10)]
            got = await asyncio.gather(*(store.write(appending(entry)) for entry in entries))
            written += [(index, entry) for (index,), entry in zip(got, entries, strict=True)]
        return written

    one, other = await asyncio.gather(append_many(b"a", stores[0]), append_many(b"b", stores[1]))

    reader = await opened(url, tmp_path / "a")
    entries = await reader.read(lambda tx: tx.entries(0, 10_000))
    notes = await reader.read(lambda tx: tx.checkpoints(0, 10_000))
    head = reader.head
    assert sorted([*one, *other]) == list(enumerate(entries))
    assert head.size == len(entries) == 1200
    assert len(set(notes)) == len(notes) > 1
    for index in (0, 255, 700, 1199):
        tiles = {}
        for tile in inclusion_tiles(index, head.size):
            tiles[tile] = await reader.read(
                lambda tx, tile=tile: tx.tile(tile.level, tile.index, tile.width)  # type: ignore[misc]
            )
        verify_inclusion(
            leaf=leaf_hash(entries[index]),
            index=index,
            size=head.size,
            proof=inclusion_proof(index, head.size, tiles),
            root=head.root,
        )
    for store in (*stores, reader):
        await store.close()


async def test_a_read_shows_what_another_hub_committed(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    url = postgres.url(database)
    one, other = [await opened(url, tmp_path / name) for name in ("a", "b")]
    await one.write(appending(b"by one"))

    assert other.head.size == 0
    assert await other.read(lambda tx: tx.entries(0, 9)) == (b"by one",)
    assert other.head == one.head
    assert (tmp_path / "b" / "head.checkpoint").read_text() == one.head.note
    await one.close()
    await other.close()


async def test_time_does_not_run_backwards_between_hubs(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    url = postgres.url(database)
    ahead, behind = await opened(url, tmp_path / "a", clock_ms=9_000), await opened(url, tmp_path / "b", clock_ms=5_000)
    times = []

    async def timed(tx: Tx) -> None:
        times.append(await tx.now_ms())
        await tx.append(b"entry")

    await ahead.write(timed)
    await behind.write(timed)

    assert times == [9_000, 9_000]
    await ahead.close()
    await behind.close()


async def test_two_hubs_never_claim_one_job(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    url = postgres.url(database)
    stores = [await opened(url, tmp_path / name) for name in ("a", "b")]
    request = Request(
        id="r",
        client="c",
        idempotency_key="k",
        profile="demo",
        envelope=b"",
        created_ms=0,
        not_after_ms=1,
        queued_ms=1,
        priority=1,
    )
    jobs = tuple(Job(request_id="r", item=item, profile="demo", signed=b"s", detail=b"") for item in range(100))
    await stores[0].write(lambda tx: tx.add_request(request, jobs))

    async def claim(tx: Tx) -> tuple[int, ...]:
        claimed = await tx.queued_jobs("r", 7, 1 << 20)
        for job in claimed:
            await tx.put_job(replace(job, state=JobState.INTENT, fence=1))
        return tuple(job.item for job in claimed)

    async def claim_all(store: PostgresStore) -> list[int]:
        items: list[int] = []
        while claimed := await store.write(claim):
            items += claimed
        return items

    one, other = await asyncio.gather(*(claim_all(store) for store in stores))

    assert sorted([*one, *other]) == list(range(100))
    assert one
    assert other
    for store in stores:
        await store.close()


# -- other databases ------------------------------------------------------------------------------------------------


async def test_a_restored_backup_is_refused(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    await with_entries(postgres.url(database), tmp_path / "a", b"one")
    backup = await postgres.make_database(template=database)
    await with_entries(postgres.url(database), tmp_path / "a", b"two")

    error = await refusal(postgres.url(backup), tmp_path / "a")

    assert isinstance(error, LogIntegrityError)
    assert error.code == "log.rollback"
    assert error.hint


async def test_another_log_of_the_same_key_is_refused(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    forked = await postgres.make_database()
    await with_entries(postgres.url(database), tmp_path / "a", b"one", b"two")
    await with_entries(postgres.url(forked), tmp_path / "b", b"one", b"other", b"three")

    assert (await refusal(postgres.url(forked), tmp_path / "a")).code == "log.rollback"


async def test_a_backup_that_is_restored_under_a_running_hub_is_noticed(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    await with_entries(postgres.url(database), tmp_path / "a", b"one")
    backup = await postgres.make_database(template=database)
    store = await opened(postgres.url(database), tmp_path / "a")
    await store.write(appending(b"two"))
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    for sql in (
        f"ALTER DATABASE {database} ALLOW_CONNECTIONS false",
        end,
        f"ALTER DATABASE {database} RENAME TO {database}_lost",
        f"ALTER DATABASE {backup} RENAME TO {database}",
    ):
        await postgres.execute(sql)

    for _ in range(2):
        with pytest.raises(LogIntegrityError) as caught:
            await store.write(appending(b"forked"))
        assert caught.value.code == "log.rollback"
    with pytest.raises(LogIntegrityError):
        await store.read(lambda tx: tx.entries(0, 9))
    await store.close()


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("UPDATE log_entry SET leaf_hash = '\\x00' WHERE entry_index = 1", "log.missing_hash"),
        ("UPDATE log_entry SET leaf_hash = sha256('') WHERE entry_index = 1", "log.corrupt"),
        ("DELETE FROM log_entry WHERE entry_index = 1", "log.missing_hash"),
        ("UPDATE log_head SET size = 2", "log.corrupt"),
        ("UPDATE log_head SET note = 'none'", "log.key"),
        ("UPDATE log_head SET origin = 'log.example/other'", "log.origin"),
        ("UPDATE privyseal_schema SET version_num = '9999'", "store.schema"),
        ("DROP TABLE privyseal_schema", "store.foreign"),
    ],
)
async def test_a_damaged_database_is_refused(
    postgres: PostgresServer, database: str, tmp_path: Path, sql: str, code: str
) -> None:
    await with_entries(postgres.url(database), tmp_path / "a", b"one", b"two", b"three")
    await postgres.execute(sql, database)

    assert (await refusal(postgres.url(database), tmp_path / "a")).code == code


async def test_a_database_of_something_else_is_left_alone(
    postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    await postgres.execute("CREATE TABLE users (name text)", database)

    assert (await refusal(postgres.url(database), tmp_path / "a")).code == "store.foreign"
    assert await postgres.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database) == [
        ("users",)
    ]


async def test_another_encoding_is_refused(postgres: PostgresServer, tmp_path: Path) -> None:
    await postgres.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")

    error = await refusal(postgres.url("latin"), tmp_path / "a")

    assert isinstance(error, ConfigError)
    assert error.code == "store.settings"
    assert "LATIN1" in error.message


# -- who is let in --------------------------------------------------------------------------------------------------


async def test_a_password_comes_from_a_file(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    passfile = tmp_path / "passfile"
    passfile.write_text(f"127.0.0.1:{postgres.port}:*:{USER}:{PASSWORD}\n")
    passfile.chmod(0o600)
    url = f"postgresql://{USER}@127.0.0.1:{postgres.port}/{database}?passfile={passfile}"

    store = await opened(url, tmp_path / "a")

    assert await store.write(appending(b"one")) == (0,)
    await store.close()


async def test_a_refused_password_is_not_told(postgres: PostgresServer, database: str, tmp_path: Path) -> None:
    passfile = tmp_path / "passfile"
    passfile.write_text(f"*:*:*:*:wrong-{PASSWORD}\n")
    passfile.chmod(0o600)

    error = await refusal(
        f"postgresql://{USER}@127.0.0.1:{postgres.port}/{database}?passfile={passfile}", tmp_path / "a"
    )

    assert isinstance(error, UnavailableError)
    assert "password authentication failed" in error.message
    assert PASSWORD not in f"{error} {error.hint}"


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    error = await refusal(f"postgresql://{USER}@/hub?host={tmp_path}", tmp_path / "a")

    assert isinstance(error, UnavailableError)
    assert error.code == "store.unavailable"
