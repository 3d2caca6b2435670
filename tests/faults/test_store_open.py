# SPDX-License-Identifier: Apache-2.0
"""What the SQLite store refuses to open or to go on with: restored, forked, damaged and foreign databases."""

import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.ports.store import Tx
from privyseal.storage.journal import SqliteJournal
from privyseal.storage.sqlite import SqliteStore

ORIGIN = "log.example/open"
KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


async def opened(folder: Path, *, origin: str = ORIGIN, key: Ed25519PrivateKey = KEY) -> SqliteStore:
    return await SqliteStore.open(
        made(folder) / "hub.db",
        origin=origin,
        log_key=key,
        clock=lambda: 0,
        head_path=folder / "head.checkpoint",
    )


def appending(*entries: bytes) -> Callable[[Tx], Awaitable[None]]:
    async def operation(tx: Tx) -> None:
        for entry in entries:
            await tx.append(entry)

    return operation


async def with_entries(folder: Path, *entries: bytes) -> Path:
    """A closed store that holds these entries, beside those that were there."""
    store = await opened(folder)
    for entry in entries:
        await store.write(appending(entry))
    await store.close()
    return folder


async def refusal(folder: Path) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        await opened(folder)
    return caught.value


def damage(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / "hub.db", isolation_level=None)) as connection:
        connection.execute(sql)


async def test_it_opens_again_as_it_was(tmp_path: Path) -> None:
    folder = await with_entries(tmp_path / "a", b"one", b"two")

    store = await opened(folder)

    assert store.head.size == 2
    assert (folder / "head.checkpoint").read_text() == store.head.note
    await store.close()


async def test_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    folder = await with_entries(tmp_path / "a", b"one")

    assert [(folder / name).stat().st_mode & 0o777 for name in ("hub.db", "head.checkpoint")] == [0o600] * 2


async def test_time_does_not_run_backwards_across_starts(tmp_path: Path) -> None:
    times: list[int] = []

    async def timed(tx: Tx) -> None:
        times.append(await tx.now_ms())
        await tx.append(b"entry")

    for clock_ms in (5_000, 3_000, 7_000):
        ticks = iter((clock_ms, clock_ms - 1_000, clock_ms - 2_000))
        store = await SqliteStore.open(
            tmp_path / "hub.db",
            origin=ORIGIN,
            log_key=KEY,
            clock=lambda ticks=ticks: next(ticks),  # type: ignore[misc]
            head_path=None,
        )
        await store.write(timed)
        await store.close()

    assert times == [5_000, 5_000, 7_000]


async def test_a_restored_backup_is_refused(tmp_path: Path) -> None:
    folder = await with_entries(tmp_path / "a", b"one")
    backup = shutil.copy(folder / "hub.db", tmp_path / "backup.db")
    await with_entries(folder, b"two")
    shutil.copy(backup, folder / "hub.db")

    error = await refusal(folder)

    assert isinstance(error, LogIntegrityError)
    assert error.code == "log.rollback"
    assert error.hint


@pytest.mark.parametrize("more", [(), (b"three", b"four")], ids=["same size", "larger"])
async def test_another_log_of_the_same_key_is_refused(tmp_path: Path, more: tuple[bytes, ...]) -> None:
    folder = await with_entries(tmp_path / "a", b"one", b"two")
    forked = await with_entries(tmp_path / "b", b"one", b"other", *more)
    shutil.copy(forked / "hub.db", folder / "hub.db")

    assert (await refusal(folder)).code == "log.rollback"


async def test_an_older_head_file_is_brought_up_to_date(tmp_path: Path) -> None:
    folder = await with_entries(tmp_path / "a", b"one")
    older = (folder / "head.checkpoint").read_text()
    await with_entries(folder, b"two", b"three")
    (folder / "head.checkpoint").write_text(older)

    store = await opened(folder)

    assert (folder / "head.checkpoint").read_text() == store.head.note
    await store.close()


async def test_a_lost_database_is_noticed(tmp_path: Path) -> None:
    folder = await with_entries(tmp_path / "a", b"one")
    (folder / "hub.db").unlink()

    assert (await refusal(folder)).code == "log.rollback"


async def test_a_missing_head_file_is_refused(tmp_path: Path) -> None:
    folder = await with_entries(tmp_path / "a", b"one")
    kept = (folder / "head.checkpoint").read_bytes()
    (folder / "head.checkpoint").unlink()

    error = await refusal(folder)

    assert error.code == "log.head_missing"
    assert "put the file back" in error.hint
    assert not (folder / "head.checkpoint").exists()
    (folder / "head.checkpoint").write_bytes(kept)
    await (await opened(folder)).close()


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"not a note\n", b"x" * 2_000_000], ids=["empty", "binary", "text", "huge"]
)
async def test_an_unreadable_head_file_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = await with_entries(tmp_path / "a", b"one")
    (folder / "head.checkpoint").write_bytes(content)

    assert (await refusal(folder)).code == "log.head_unreadable"


async def test_a_head_file_by_another_key_is_refused(tmp_path: Path) -> None:
    folder = await with_entries(tmp_path / "a", b"one")
    stranger = await opened(tmp_path / "b", key=Ed25519PrivateKey.generate())
    await stranger.close()
    shutil.copy(tmp_path / "b" / "head.checkpoint", folder / "head.checkpoint")

    assert (await refusal(folder)).code == "log.head_unreadable"


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("UPDATE log_entry SET leaf_hash = zeroblob(32) WHERE entry_index = 1", "log.corrupt"),
        ("UPDATE log_entry SET leaf_hash = zeroblob(31) WHERE entry_index = 1", "log.missing_hash"),
        ("DELETE FROM log_entry WHERE entry_index = 1", "log.missing_hash"),
        ("INSERT INTO log_entry VALUES (3, zeroblob(32), x'00')", "log.corrupt"),
        ("UPDATE log_head SET root = zeroblob(32)", "log.corrupt"),
        ("UPDATE log_head SET size = 2", "log.corrupt"),
        ("UPDATE log_head SET note = 'none'", "log.key"),
        ("UPDATE log_head SET origin = 'log.example/other'", "log.origin"),
        ("UPDATE privyseal_schema SET version_num = '9999'", "store.schema"),
        ("DROP TABLE privyseal_schema", "store.foreign"),
        ("PRAGMA application_id = 99", "store.foreign"),
    ],
)
async def test_a_damaged_database_is_refused(tmp_path: Path, sql: str, code: str) -> None:
    folder = await with_entries(tmp_path / "a", b"one", b"two", b"three")
    damage(folder, sql)

    assert (await refusal(folder)).code == code


async def test_another_origin_or_key_is_a_matter_of_configuration(tmp_path: Path) -> None:
    folder = await with_entries(tmp_path / "a", b"one")

    with pytest.raises(ConfigError) as origin:
        await opened(folder, origin="log.example/other")
    with pytest.raises(ConfigError) as key:
        await opened(folder, key=Ed25519PrivateKey.generate())

    assert (origin.value.code, key.value.code) == ("log.origin", "log.key")


async def test_a_journal_is_no_hub_database(tmp_path: Path) -> None:
    journal = await SqliteJournal.open(tmp_path / "hub.db", origin="hub.example")
    await journal.close()

    assert (await refusal(tmp_path)).code == "store.foreign"


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub.db").write_bytes(b"not a database at all " * 100)

    error = await refusal(tmp_path)

    assert isinstance(error, UnavailableError)
    assert error.code == "store.unavailable"


async def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        await SqliteStore.open(
            tmp_path / "none" / "hub.db", origin=ORIGIN, log_key=KEY, clock=lambda: 0, head_path=None
        )

    assert caught.value.code == "store.unavailable"


async def test_a_second_writer_is_found_out(tmp_path: Path) -> None:
    one = await opened(tmp_path / "a")
    other = await opened(tmp_path / "a")
    await one.write(appending(b"by one"))

    for _ in range(2):
        with pytest.raises(LogIntegrityError) as caught:
            await other.write(appending(b"by the other"))
        assert caught.value.code == "log.head_moved"

    await one.write(appending(b"by one again"))
    assert await one.read(lambda tx: tx.entries(0, 9)) == (b"by one", b"by one again")
    await other.close()
    await one.close()
