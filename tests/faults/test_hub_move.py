# SPDX-License-Identifier: Apache-2.0
"""Moving a hub from SQLite to PostgreSQL: all or nothing, one database in force after every step that fails or dies."""

import asyncio
import errno
import os
import shutil
import signal
import sqlite3
import sys
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from postgres_proxy import commit_proxy
from postgres_server import PostgresServer
from privyseal.errors import ConfigError, PrivysealError, UnavailableError
from privyseal.hub import migrating
from privyseal.hub.config import HubFiles, load_hub_config
from privyseal.hub.diagnosis_database import database_rows
from privyseal.hub.migrating import migrate_hub
from privyseal.hub.moving import Moved, Stage, move_hub
from privyseal.ports.clock import system_clock
from privyseal.ports.diagnosis import Row, Verdict
from privyseal.storage import schema
from privyseal.storage.durable_file import PosixFileSystem
from privyseal.storage.schema import COPY_TABLE
from privyseal.tlog.entry import Admin, parse_entry
from programs import until
from stopped_hub import append, entries, made_hub, opened, postgres_rows, sqlite_rows

pytestmark = pytest.mark.interop

#: Up to which hub.toml still names no database.
BEFORE = (Stage.SOURCE, Stage.TARGET, Stage.COPIED, Stage.VERIFIED, Stage.COMMITTED)
BEHIND = (Stage.SWITCHED, Stage.RECORDED)

KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from privyseal.hub.moving import Stage, move_hub

def told(stage):
    if stage.name == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(move_hub(Path(sys.argv[1]), sys.argv[2], told=told))
"""


@dataclass(kw_only=True)
class Move:
    """A hub's directory, and the empty database that it is to be moved to."""

    directory: Path
    server: PostgresServer
    database: str

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    @property
    def path(self) -> Path:
        return self.directory / "hub.db"

    async def run(self, **options: Any) -> Moved:
        return await move_hub(self.directory, self.url, **options)

    async def refused(self, **options: Any) -> PrivysealError:
        with pytest.raises(PrivysealError) as caught:
            await self.run(**options)
        return caught.value

    async def unmoved(self, code: str, **options: Any) -> PrivysealError:
        """It is refused for this reason, and both databases and hub.toml are as they were."""
        files = (self.path, self.directory / "hub.toml", self.directory / "head.checkpoint")
        before = [path.read_bytes() for path in files]
        there = await self.rows()
        refusal = await self.refused(**options)
        assert refusal.code == code, refusal
        assert refusal.hint
        assert [path.read_bytes() for path in files] == before
        assert await self.rows() == there
        return refusal

    async def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return await postgres_rows(self.server, self.database)

    async def diagnosis(self) -> tuple[Row, ...]:
        """What the doctor says of the hub's database."""
        config = load_hub_config(self.directory)
        return await asyncio.to_thread(database_rows, HubFiles(self.directory), config, system_clock)

    def in_force(self) -> str:
        return load_hub_config(self.directory).database

    async def use(self) -> tuple[bytes, ...]:
        """What a hub does that is started now: it opens what is in force, and writes; the entries."""
        store = await opened(self.directory)
        await append(store)
        found = await entries(store)
        await store.close()
        return found

    async def check_moved(self, before: tuple[bytes, ...]) -> None:
        """Everything is in PostgreSQL, the log went on, and says once that it was moved."""
        assert self.in_force() == self.url
        assert not self.path.exists()
        assert [path.name[:13] for path in self.directory.glob("hub.db*")] == ["hub.db.moved-"]
        found = await self.use()
        assert found[: len(before)] == before
        said = [parse_entry(data) for data in found]
        assert sum(isinstance(one, Admin) and one.action == "move" for one in said) == 1
        assert COPY_TABLE not in await self.rows()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(made_hub(tmp_path_factory.mktemp("move") / "hub"))


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    return asyncio.run(postgres.make_database())


@pytest.fixture
async def move(template: Path, tmp_path: Path, postgres: PostgresServer, database: str) -> Move:
    # Emptied, not made anew: a database is 300 files.
    await postgres.execute("DROP SCHEMA public CASCADE", database)
    await postgres.execute("CREATE SCHEMA public", database)
    directory = tmp_path / "hub"
    shutil.copytree(template, directory)
    return Move(directory=directory, server=postgres, database=database)


async def killed(script: str, *arguments: str | Path) -> int:
    """Run a program that kills itself; how it ended."""
    paths = os.pathsep.join(path for path in sys.path if path)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *map(str, arguments)), env={**os.environ, "PYTHONPATH": paths}
    )
    return await asyncio.wait_for(child.wait(), 60)


# -- what is moved --------------------------------------------------------------------------------------------------


async def test_every_row_is_there(move: Move) -> None:
    before = sqlite_rows(move.path)
    store = await opened(move.directory)
    log = await entries(store)
    head = store.head
    await store.close()
    text = (move.directory / "hub.toml").read_text()
    known = (move.directory / "head.checkpoint").read_text()
    seen: list[Any] = []

    def look(stage: Stage) -> None:
        seen.append(stage)
        if stage is Stage.SWITCHED:
            assert (move.directory / "head.checkpoint").read_text() == known == head.note

    done = await move.run(told=look)

    assert seen == list(Stage)
    assert [name for name, rows in before.items() if not rows] == []
    assert dict(done.tables) == {name: len(rows) for name, rows in before.items()}
    after = await move.rows()
    log_tables = {"log_head", "log_entry", "log_node", "log_checkpoint"}
    assert {name: after[name] for name in before.keys() - log_tables} == {
        name: before[name] for name in before.keys() - log_tables
    }
    for name in log_tables - {"log_head"}:
        assert set(before[name]) <= set(after[name])
    assert (done.entries, done.index) == (head.size, head.size)
    await move.check_moved(log)
    assert done.aside is not None
    assert sqlite_rows(done.aside) == before
    changed = (move.directory / "hub.toml").read_text()
    assert changed.replace(f'database = "{move.url}"\n', "", 1) == text
    assert (move.directory / "hub.toml").stat().st_mode & 0o777 == 0o600


USED = """
import asyncio, os, signal, sys
from pathlib import Path
from stopped_hub import append, opened

async def main():
    await append(await opened(Path(sys.argv[1])), 5)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_a_killed_hub_has_committed_is_moved(move: Move) -> None:
    """It stands beside the file, in the WAL."""
    size = (await move.run(dry_run=True)).entries
    assert await killed(USED, move.directory) == -signal.SIGKILL
    assert move.path.with_name("hub.db-wal").stat().st_size > 0

    done = await move.run()

    assert done.entries == size + 5
    await move.check_moved(())


async def test_a_dry_run_changes_nothing(move: Move) -> None:
    files = {path: path.read_bytes() for path in move.directory.iterdir()}

    done = await move.run(dry_run=True)

    assert {path: path.read_bytes() for path in move.directory.iterdir()} == files
    assert dict(done.tables) == {name: len(rows) for name, rows in sqlite_rows(move.path).items()}
    assert (done.index, done.aside) == (None, None)
    assert await move.rows() == {}


# -- each step fails, or is the last --------------------------------------------------------------------------------


class StepError(Exception):
    """A step failed."""


@pytest.mark.parametrize("last", BEFORE)
async def test_a_step_that_fails_before_the_switch_changes_nothing(move: Move, last: Stage) -> None:
    before = sqlite_rows(move.path)
    text = (move.directory / "hub.toml").read_bytes()

    def fail(stage: Stage) -> None:
        if stage is last:
            raise StepError

    with pytest.raises(StepError):
        await move.run(told=fail)

    assert (move.directory / "hub.toml").read_bytes() == text
    assert await move.rows() == {}
    assert sqlite_rows(move.path) == before
    log = await move.use()
    await move.run()
    await move.check_moved(log)


@pytest.mark.parametrize("last", BEHIND)
async def test_a_step_that_fails_behind_the_switch_is_made_up_for(move: Move, last: Stage) -> None:
    def fail(stage: Stage) -> None:
        if stage is last:
            raise StepError

    with pytest.raises(StepError):
        await move.run(told=fail)

    assert move.in_force() == move.url
    assert [(row.subject, row.verdict) for row in await move.diagnosis()][2:] == [("hub.db", Verdict.WARN)]
    log = await move.use()
    done = await move.run()
    assert done.tables == ()
    assert len(await move.diagnosis()) == 2
    await move.check_moved(log)


@pytest.mark.parametrize("last", Stage)
@pytest.mark.parametrize("used", [False, True], ids=["at once", "after use"])
async def test_a_killed_move_leaves_one_in_force(move: Move, last: Stage, *, used: bool) -> None:
    before = sqlite_rows(move.path)
    assert await killed(KILLED, move.directory, move.url, last.name) == -signal.SIGKILL

    if last in BEFORE:
        assert move.in_force() == ""
        assert sqlite_rows(move.path) == before
        rows = await move.rows()
        assert (COPY_TABLE in rows) == (last is Stage.COMMITTED)
        assert bool(rows) == (last is Stage.COMMITTED)
    else:
        assert move.in_force() == move.url
    log = await move.use() if used else ()
    if last is Stage.ASIDE:
        assert (await move.refused()).code == "move.already"
    else:
        await move.run()
    await move.check_moved(log)


# -- trouble with files and server ----------------------------------------------------------------------------------


class Files(PosixFileSystem):
    """Fails at one step of replacing hub.toml."""

    def __init__(self, fail_at: str) -> None:
        self.fail_at = fail_at

    def _take(self, step: str) -> None:
        if step == self.fail_at:
            raise OSError(errno.ENOSPC, "No space left on device")

    def write(self, descriptor: int, data: bytes) -> None:
        self._take("write")
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._take("sync")
        super().sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        self._take("rename")
        super().rename(source, target)

    def sync_directory(self, path: Path) -> None:
        self._take("sync_directory")
        super().sync_directory(path)


@pytest.mark.parametrize("step", ["write", "sync", "rename"])
async def test_a_configuration_that_cannot_be_written_leaves_all_as_it_was(move: Move, step: str) -> None:
    refusal = await move.unmoved("store.unavailable", files=Files(step))

    assert "hub.toml could not be replaced: [Errno 28]" in refusal.message
    assert await move.rows() == {}
    await move.run()
    await move.check_moved(())


async def test_a_configuration_that_may_not_last_keeps_both(move: Move) -> None:
    """hub.toml names PostgreSQL for all who look now, and may name nothing after a loss of power."""
    text = (move.directory / "hub.toml").read_bytes()
    before = sqlite_rows(move.path)

    assert (await move.refused(files=Files("sync_directory"))).code == "store.unavailable"

    assert move.in_force() == move.url
    assert sqlite_rows(move.path) == before
    assert (await move.rows()).keys() == {*before, COPY_TABLE}
    lost = move.directory.with_name("lost")
    shutil.copytree(move.directory, lost)
    await move.run()
    await move.check_moved(())
    # The other end of the story, with a database of its own.
    (lost / "hub.toml").write_bytes(text)
    other = Move(directory=lost, server=move.server, database=await move.server.make_database())
    assert len(await other.use()) > 600
    await other.run()
    await other.check_moved(())


async def test_the_end_can_be_made_up_for_while_the_hub_runs_on(move: Move) -> None:
    def stop(stage: Stage) -> None:
        if stage is Stage.SWITCHED:
            move.server.stop("immediate")

    refusal = await move.refused(told=stop)
    move.server.start()

    assert refusal.code == "move.unfinished"
    assert "run the same command again" in refusal.hint
    log = await move.use()
    await move.run()
    await move.check_moved(log)


@pytest.mark.parametrize("last", [Stage.COPIED, Stage.VERIFIED])
async def test_a_server_that_crashes_before_the_commit_has_nothing(move: Move, last: Stage) -> None:
    def crash(stage: Stage) -> None:
        if stage is last:
            move.server.stop("immediate")
            move.server.start()

    await move.unmoved("store.unavailable", told=crash)

    assert await move.rows() == {}
    await move.run()
    await move.check_moved(())


@pytest.mark.parametrize("lose", ["commit", "answer"])
@pytest.mark.parametrize("gone", [False, True], ids=["back at once", "away for longer"])
async def test_a_commit_whose_answer_is_lost_moves_nothing(move: Move, lose: str, *, gone: bool) -> None:
    with commit_proxy(move.server) as proxy:
        url = move.server.url(move.database, folder=proxy.folder)

        def break_off(stage: Stage) -> None:
            if stage is Stage.VERIFIED:
                proxy.lose, proxy.closed = lose, gone

        with pytest.raises(UnavailableError) as caught:
            await move_hub(move.directory, url, told=break_off)

    assert caught.value.code == "store.unavailable"
    assert move.in_force() == ""
    assert bool(await move.rows()) == (gone and lose == "answer")
    log = await move.use()
    await move.run()
    await move.check_moved(log)


CHANGING = """
CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {change} END $$;
CREATE FUNCTION arm() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
    IF to_regclass('{table}') IS NOT NULL AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'changing') THEN
        CREATE TRIGGER changing BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION change();
    END IF;
END $$;
CREATE EVENT TRIGGER arming ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION arm();
"""


@pytest.mark.parametrize(
    ("table", "change", "said"),
    [
        ("lease", "NEW.fence := 8; RETURN NEW;", "given 1 rows, and 1 others"),
        ("join_code", "IF NEW.taken = 1 THEN RETURN NULL; END IF; RETURN NEW;", "given 2 rows, and 1 others"),
    ],
)
async def test_a_server_that_keeps_other_rows_gets_nothing(move: Move, table: str, change: str, said: str) -> None:
    connection = await asyncpg.connect(move.url)
    await connection.execute(CHANGING.format(table=table, change=change))
    await connection.close()

    refusal = await move.unmoved("move.differs")

    assert f"table {table} was {said}" in refusal.message


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
        patch.setattr(schema, "REVISION", "0001")
        directory = await made_hub(tmp_path / "hub", filled=False)
    move = Move(directory=directory, server=postgres, database=await postgres.make_database())

    assert "privyseal hub migrate" in (await move.unmoved("store.old_schema")).hint
    migrate_hub(directory)
    await move.run()
    await move.check_moved(())


# -- what others add ------------------------------------------------------------------------------------------------

LATER = """
import sqlalchemy as sa
from alembic import op

revision = "0900"
down_revision = "{before}"


def upgrade():
    integer = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("lease", sa.Column("weight", integer, server_default="5"))
    op.create_table(
        "approval",
        sa.Column("ratio", sa.Double().with_variant(sa.REAL(), "sqlite"), nullable=True),
        sa.Column("request", sa.Text(), sa.ForeignKey("request.id"), primary_key=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sqlite_strict=True,
    )
    op.execute("INSERT INTO approval (request) SELECT id FROM request")
"""


async def test_tables_and_columns_of_a_later_revision_are_moved_alike(
    move: Move, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = tmp_path / "migrations"
    shutil.copytree(Path(schema.__file__).with_name("migrations"), migrations)
    (migrations / "versions" / "r0900_later.py").write_text(LATER.format(before=schema.REVISION))
    monkeypatch.setattr(schema, "_MIGRATIONS", migrations)
    for module in (schema, migrating):
        monkeypatch.setattr(module, "REVISION", "0900")
    migrate_hub(move.directory)
    with closing(sqlite3.connect(move.path, isolation_level=None)) as connection:
        connection.execute("UPDATE lease SET weight = 9")
        connection.execute("UPDATE approval SET ratio = 0.1, envelope = x'00ff' WHERE request LIKE '%1'")
    before = sqlite_rows(move.path)

    done = await move.run()

    after = await move.rows()
    assert dict(done.tables)["approval"] == 3
    assert (after["approval"], after["lease"]) == (before["approval"], before["lease"])


async def test_the_database_numbers_nothing_by_itself(move: Move) -> None:
    """What was copied into a numbered column would be given again."""
    await move.run()

    assert await move.server.execute("SELECT relname FROM pg_class WHERE relkind = 'S'", move.database) == []
