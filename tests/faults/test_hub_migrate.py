# SPDX-License-Identifier: Apache-2.0
"""`hub migrate`: databases of an older release are upgraded where an operator says so, those of a newer are refused."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from postgres_server import PostgresServer
from privyseal.errors import ConfigError
from privyseal.storage import schema
from privyseal.storage.schema import REVISION
from programs import Outcome, privyseal, refused, succeeded
from stopped_hub import append, made_hub, opened

OLDEST = "0003"
NEWER = "0999"


@dataclass(kw_only=True)
class Hub:
    """A hub whose database was made by an older release, and a way to ask its database."""

    directory: Path
    place: str
    ask: Callable[[str], Awaitable[list[tuple[object, ...]]]]

    def migrate(self, *arguments: str) -> Outcome:
        return privyseal("hub", "migrate", "--dir", self.directory, *arguments)

    async def revision(self) -> object:
        ((revision,),) = await self.ask("SELECT version_num FROM privyseal_schema")
        return revision


async def older(directory: Path, monkeypatch: pytest.MonkeyPatch, database: str = "") -> None:
    """Make a hub with the tables of the first revision."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "REVISION", OLDEST)
        await made_hub(directory, filled=False, database=database)


async def over_sqlite(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    await older(directory, monkeypatch)

    async def ask(sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(directory / "hub.db", isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    return Hub(directory=directory, place=str(directory / "hub.db"), ask=ask)


async def over_postgres(directory: Path, monkeypatch: pytest.MonkeyPatch, server: PostgresServer) -> Hub:
    database = await server.make_database()
    await older(directory, monkeypatch, server.url(database))

    async def ask(sql: str) -> list[tuple[object, ...]]:
        return await server.execute(sql, database)

    return Hub(directory=directory, place=f"PostgreSQL database {database} at {server.folder}", ask=ask)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.interop)])
async def hub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    if request.param == "sqlite":
        return await over_sqlite(tmp_path / "hub", monkeypatch)
    return await over_postgres(tmp_path / "hub", monkeypatch, request.getfixturevalue("postgres"))


@pytest.fixture
async def on_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer) -> Hub:
    return await over_postgres(tmp_path / "hub", monkeypatch, postgres)


async def test_an_older_database_is_upgraded_once(hub: Hub) -> None:
    checked = hub.migrate("--check", "--json")
    assert checked.code == 1
    assert checked.document == {
        "database": hub.place,
        "before": OLDEST,
        "after": REVISION,
        "changed": False,
        "pending": True,
    }
    assert await hub.revision() == OLDEST

    assert succeeded(hub.migrate()).out == f"migrated {hub.place} from revision {OLDEST} to revision {REVISION}\n"

    assert await hub.revision() == REVISION
    assert succeeded(hub.migrate("--check", "--json")).document["pending"] is False
    assert succeeded(hub.migrate("--json")).document["changed"] is False
    store = await opened(hub.directory)
    await append(store)
    await store.close()


async def test_a_newer_database_is_refused_by_hub_and_migration(hub: Hub) -> None:
    await hub.ask(f"UPDATE privyseal_schema SET version_num = '{NEWER}'")

    said = refused(privyseal("hub", "run", "--dir", hub.directory), 2, "store.schema").err
    assert f"schema revision '{NEWER}'; this release reads {REVISION}" in said
    assert "or a newer one" in said
    for arguments in ((), ("--check",)):
        refused(hub.migrate(*arguments, "--json"), 2, "store.schema")
    assert await hub.revision() == NEWER


async def test_a_hub_upgrades_its_own_file_when_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = await over_sqlite(tmp_path / "hub", monkeypatch)

    await (await opened(hub.directory)).close()

    assert await hub.revision() == REVISION


async def test_a_file_in_use_is_only_looked_at(tmp_path: Path) -> None:
    directory = await made_hub(tmp_path / "hub", filled=False)
    store = await opened(directory)
    try:
        assert succeeded(privyseal("hub", "migrate", "--dir", directory, "--check")).code == 0
        with closing(sqlite3.connect(directory / "hub.db", isolation_level=None)) as connection:
            connection.execute(f"UPDATE privyseal_schema SET version_num = '{OLDEST}'")
        refused(privyseal("hub", "migrate", "--dir", directory), 2, "store.in_use")
    finally:
        await store.close()


async def test_a_hub_that_was_never_started_has_no_file_after_a_check(tmp_path: Path) -> None:
    directory = await made_hub(tmp_path / "hub", filled=False)
    (directory / "hub.db").unlink()

    checked = privyseal("hub", "migrate", "--dir", directory, "--check")

    assert (checked.code, "from nothing to revision" in checked.out) == (1, True)
    assert not (directory / "hub.db").exists()


@pytest.mark.interop
async def test_a_hub_leaves_an_older_postgresql_database_alone(on_postgres: Hub) -> None:
    said = refused(privyseal("hub", "run", "--dir", on_postgres.directory), 2, "store.old_schema").err

    assert "privyseal hub migrate --dir DIR" in said
    assert await on_postgres.revision() == OLDEST


@pytest.mark.interop
async def test_no_database_is_upgraded_below_a_hub(on_postgres: Hub, postgres: PostgresServer) -> None:
    database = on_postgres.place.split()[2]
    other = await asyncpg.connect(postgres.url(database), server_settings={"application_name": "privyseal hub"})
    try:
        outcome = await asyncio.to_thread(on_postgres.migrate)
        assert "1 connections of a hub" in refused(outcome, 2, "store.in_use").err
        assert (await asyncio.to_thread(on_postgres.migrate, "--check")).code == 1
    finally:
        await other.close()
    assert await on_postgres.revision() == OLDEST
    succeeded(on_postgres.migrate())


@pytest.mark.interop
async def test_a_hub_that_was_cut_off_during_an_upgrade_writes_nothing(on_postgres: Hub) -> None:
    succeeded(await asyncio.to_thread(on_postgres.migrate))
    store = await opened(on_postgres.directory)
    size = store.head.size
    await on_postgres.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'privyseal%'"
    )
    await on_postgres.ask(f"UPDATE privyseal_schema SET version_num = '{NEWER}'")

    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            await append(store)
        assert caught.value.code == "store.schema"

    await on_postgres.ask(f"UPDATE privyseal_schema SET version_num = '{REVISION}'")
    await append(store)
    assert store.head.size == size + 1
    await store.close()


def test_flags_that_do_not_go_together(tmp_path: Path) -> None:
    for flags in (("--check", "--to", "postgresql://x@localhost/y"), ("--dry-run",)):
        refused(privyseal("hub", "migrate", "--dir", tmp_path, *flags), 2, "usage.arguments")
