# SPDX-License-Identifier: Apache-2.0
"""What is not moved to PostgreSQL, and who else may be at work meanwhile; a refusal changes nothing."""

import asyncio
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from moving import Move, StepError
from postgres_server import PostgresServer
from privyseal.errors import ConfigError, PrivysealError, UnavailableError
from privyseal.hub.migrating import migrate_hub
from privyseal.hub.moving import Stage, move_hub
from privyseal.storage import schema
from privyseal.storage.schema import COPY_TABLE
from programs import until
from stopped_hub import append, made_hub, opened

pytestmark = pytest.mark.interop
pytest_plugins = ["moving_fixtures"]

# -- who else is at work --------------------------------------------------------------------------------------------


async def test_a_database_in_use_is_not_moved(move: Move) -> None:
    store = await opened(move.directory)
    try:
        assert (await move.refused()).code == "store.in_use"
        await append(store)
    finally:
        await store.close()
    assert await move.rows() == {}


async def test_nobody_gets_in_before_the_end(move: Move) -> None:
    tried = []

    def try_to_get_in(stage: Stage) -> None:
        with closing(sqlite3.connect(move.path, timeout=0)) as connection:
            if stage is Stage.ASIDE:
                return
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                connection.execute("SELECT * FROM log_head")
        tried.append(stage)

    await move.run(told=try_to_get_in)

    assert tried == list(Stage)[:-1]


@pytest.mark.parametrize("last", [Stage.SWITCHED, Stage.RECORDED, Stage.ASIDE])
async def test_a_hub_that_waited_for_the_file_does_not_start_on_it(move: Move, last: Stage) -> None:
    """It has read the old hub.toml, and opened hub.db, which may get another name while it waits for the lock."""
    found: list[BaseException] = []

    def start() -> None:
        try:
            asyncio.run(opened(move.directory))
        except PrivysealError as error:
            found.append(error)

    hub = threading.Thread(target=start)

    def opens() -> bool:
        return sum(path.resolve() == move.path for path in Path("/proc/self/fd").iterdir()) > 1

    def let_wait(stage: Stage) -> None:
        if stage is Stage.VERIFIED:
            hub.start()
            until(opens, "the other hub has opened the file")
        if stage is last:
            raise StepError

    with pytest.raises(StepError):
        await move.run(told=let_wait)
    await asyncio.to_thread(hub.join)

    assert [getattr(error, "code", error) for error in found] == ["store.moved"], found
    if last is not Stage.ASIDE:
        await move.run()
    await move.check_moved(())


# -- what is refused ------------------------------------------------------------------------------------------------


async def test_a_database_of_something_else_stays_as_it_is(move: Move) -> None:
    await move.server.execute("CREATE TABLE accounts (id int)", move.database)

    refusal = await move.unmoved("move.not_empty")

    assert "it has 1 tables, of them accounts" in refusal.message


@pytest.mark.parametrize("copied", [False, True], ids=["in use", "an unused copy"])
async def test_the_log_of_another_hub_is_named(move: Move, tmp_path: Path, *, copied: bool) -> None:
    other = Move(
        directory=await made_hub(tmp_path / "other", name="hub.example/other", filled=False),
        server=move.server,
        database=move.database,
    )
    if copied:
        with pytest.raises(StepError):
            await other.run(told=_fail_for_good)
        assert COPY_TABLE in await move.rows()
    else:
        await other.run()

    refusal = await move.unmoved("move.other_log")

    assert "log 'hub.example/other' of " in refusal.message


def _fail_for_good(stage: Stage) -> None:
    if stage is Stage.SWITCHED:
        raise StepError


async def test_this_hub_s_own_log_in_use_is_not_thrown_away(move: Move, tmp_path: Path) -> None:
    shutil.copytree(move.directory, tmp_path / "copy")
    await Move(directory=tmp_path / "copy", server=move.server, database=move.database).run()

    assert "log 'hub.example/lab'" in (await move.unmoved("move.other_log")).message


async def test_a_server_that_is_not_there(move: Move) -> None:
    with pytest.raises(UnavailableError) as caught:
        await move_hub(move.directory, "postgresql://hub@127.0.0.1:1/privyseal")

    assert caught.value.code == "store.unavailable"
    assert "PostgreSQL database privyseal at 127.0.0.1:1" in caught.value.message
    await move.run()


async def test_addresses_are_those_that_hub_toml_may_have(move: Move) -> None:
    for url in (
        "postgresql://hub:canary-5150@localhost/x",
        "postgresql://hub@db.example.com/x",
        "mysql://x@localhost/y",
    ):
        with pytest.raises(ConfigError) as caught:
            await move_hub(move.directory, url)
        assert caught.value.code == "config.database"
        assert "canary" not in str(caught.value) + caught.value.hint


async def test_what_is_moved_already_is_not_moved_again(move: Move) -> None:
    await move.run()

    assert f"PostgreSQL database {move.database} at" in (await move.refused()).message
    assert (await move.refused()).code == "move.already"


async def test_hub_toml_may_not_name_the_database_before(move: Move) -> None:
    path = move.directory / "hub.toml"
    path.write_text(f'database = "{move.url}"\n{path.read_text()}')

    assert "take the line `database` out" in (await move.unmoved("move.already")).hint
    other = Move(directory=move.directory, server=move.server, database=await move.server.make_database())
    await other.unmoved("move.already")


@pytest.mark.parametrize("there", [False, True])
async def test_a_hub_without_a_log_has_nothing_to_move(move: Move, *, there: bool) -> None:
    for name in ("hub.db", "head.checkpoint"):
        (move.directory / name).unlink()
    if there:
        move.path.touch()

    assert (await move.refused()).code == "move.nothing"
    assert move.path.exists() == there


DAMAGE = {
    "another body": ("UPDATE log_entry SET body = x'7b7d' WHERE entry_index = 17", "log.corrupt", "entry 17 does not"),
    "a lost entry": ("DELETE FROM log_entry WHERE entry_index = 300", "log.corrupt", "300"),
    "another tile hash": ("UPDATE log_node SET hash = zeroblob(32) WHERE hash_index = 0", "log.corrupt", ""),
    "a tile hash too many": ("INSERT INTO log_node VALUES (3, 9, zeroblob(32))", "log.corrupt", "tile hashes beyond"),
    "another checkpoint": ("UPDATE log_checkpoint SET root = zeroblob(32) WHERE number = 2", "log.corrupt", "size"),
    "text that is none": (
        "UPDATE request SET client = CAST(x'ff41' AS TEXT) WHERE idempotency_key = 'once-1'",
        "log.corrupt",
        "row 2 of table request: client is not text",
    ),
    "a NUL character": ("UPDATE lease SET holder = 'a' || char(0)", "store.value", "row 1 of table lease: holder"),
    "a table of its own": ("CREATE TABLE notes (text TEXT) STRICT", "move.tables", "table notes"),
    "a column of its own": ("ALTER TABLE lease ADD COLUMN note TEXT", "move.tables", "note"),
    "an older state": ("DELETE FROM log_head", "log.", ""),
    "a newer revision": ("UPDATE privyseal_schema SET version_num = '0999'", "store.schema", "'0999'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_named_and_nothing_is_moved(move: Move, damage: str) -> None:
    statement, code, place = DAMAGE[damage]
    with closing(sqlite3.connect(move.path, isolation_level=None)) as connection:
        connection.execute(statement)

    refusal = await move.refused()

    assert refusal.code.startswith(code), refusal
    assert place in refusal.message
    assert refusal.hint or code == "store.value"
    assert move.in_force() == ""
    assert await move.rows() == {}


async def test_a_file_that_is_damaged_is_named(move: Move) -> None:
    data = bytearray(move.path.read_bytes())
    data[40_000:60_000] = bytes(20_000)
    move.path.write_bytes(data)

    refusal = await move.unmoved("log.corrupt")

    assert f"the database {move.path} is damaged: " in refusal.message


async def test_a_restored_file_is_not_moved(move: Move, tmp_path: Path) -> None:
    shutil.copy(move.path, tmp_path / "backup")
    await move.use()
    shutil.copy(tmp_path / "backup", move.path)

    await move.unmoved("log.rollback")


async def test_an_older_database_is_upgraded_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "REVISION", "0003")
        directory = await made_hub(tmp_path / "hub", filled=False)
    move = Move(directory=directory, server=postgres, database=await postgres.make_database())

    assert "privyseal hub migrate" in (await move.unmoved("store.old_schema")).hint
    migrate_hub(directory)
    await move.run()
    await move.check_moved(())
