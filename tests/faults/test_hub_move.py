# SPDX-License-Identifier: Apache-2.0
"""Moving a hub to PostgreSQL: every row is there, and one database is in force after every step that fails or dies."""

import errno
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from moving import Move, StepError, killed
from postgres_proxy import commit_proxy
from privyseal.errors import UnavailableError
from privyseal.hub import migrating
from privyseal.hub.migrating import migrate_hub
from privyseal.hub.moving import Stage, move_hub
from privyseal.ports.diagnosis import Verdict
from privyseal.storage import schema
from privyseal.storage.durable_file import PosixFileSystem
from privyseal.storage.schema import COPY_TABLE
from stopped_hub import entries, opened, sqlite_rows

pytestmark = pytest.mark.interop
pytest_plugins = ["moving_fixtures"]

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
