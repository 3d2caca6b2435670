# SPDX-License-Identifier: Apache-2.0
"""The fault table of the agent's journal: each statement of a commit fails, or fails and yet took effect."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from failing_journal import Faults
from privyseal.errors import ConfigError, LogIntegrityError, PrivysealError, UnavailableError
from privyseal.ports.journal import JournalPart, Outcome, OutcomeState
from privyseal.storage.journal import SqliteJournal

ROOT = b"r" * 32
BEGIN_STEPS = (
    "PRAGMA synchronous",
    "BEGIN IMMEDIATE",
    "SELECT note",
    "INSERT OR REPLACE INTO held_checkpoint",
    "SELECT fence",
    "INSERT OR REPLACE INTO token_fence",
    "SELECT number",
    "INSERT INTO operation ",
)
FINISH_STEPS = ("BEGIN IMMEDIATE", "SELECT signature", "INSERT INTO operation_end")


async def begin(journal: SqliteJournal, number: int) -> None:
    await journal.begin(
        checkpoint_note=f"note {number}",
        size=number,
        root=ROOT,
        token="lab",
        profile="demo",
        fence=number,
        parts=(JournalPart(request_id=f"request {number}", items=((0, b"intent"),)),),
    )


async def finish(journal: SqliteJournal, number: int) -> None:
    await journal.finish(f"request {number}", 0, number, signature=b"signature", branch="", code="", message="")


async def started(path: Path) -> tuple[SqliteJournal, Faults]:
    faults = Faults()
    journal = await SqliteJournal.open(path, connect=faults.connect, origin="hub.example")
    await begin(journal, 1)
    return journal, faults


async def stands_at(path: Path, number: int) -> None:
    """Opened again, the journal holds exactly the operations 1 to `number`."""
    journal = await SqliteJournal.open(path, origin="hub.example")
    assert (await journal.state()).size == number
    assert await journal.max_fence("lab") == number
    assert [entry.fence for entry in await journal.entries(0, 10)] == list(range(1, number + 1))
    await journal.close()


async def refused(call: Callable[[SqliteJournal, int], Any], journal: SqliteJournal, number: int) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        await call(journal, number)
    return caught.value


@pytest.mark.parametrize("persist", [False, True], ids=["failed", "failed but persisted"])
@pytest.mark.parametrize("step", BEGIN_STEPS)
async def test_a_fault_before_commit_begins_nothing(tmp_path: Path, step: str, *, persist: bool) -> None:
    path = tmp_path / "journal.db"
    journal, faults = await started(path)
    faults.fail_at, faults.persist = step, persist

    error = await refused(begin, journal, 2)

    assert isinstance(error, UnavailableError)
    assert error.code == "journal.unavailable"
    faults.fail_at = ""
    assert await journal.outcome("request 2", 0, 2) is None
    await begin(journal, 2)  # the token was not used: the same fence may be tried again
    await journal.close()
    await stands_at(path, 2)


@pytest.mark.parametrize("persist", [False, True], ids=["failed", "failed but persisted"])
async def test_a_commit_of_unknown_outcome_stops_the_journal(tmp_path: Path, *, persist: bool) -> None:
    path = tmp_path / "journal.db"
    journal, faults = await started(path)
    faults.fail_at, faults.persist = "COMMIT", persist

    errors = [await refused(begin, journal, 2)]
    faults.fail_at = ""
    errors += [await refused(begin, journal, 2), await refused(finish, journal, 1)]
    with pytest.raises(LogIntegrityError) as reading:
        await journal.outcome("request 2", 0, 2)

    assert {(type(error), error.code) for error in (*errors, reading.value)} == {
        (LogIntegrityError, "journal.commit_unknown")
    }
    await journal.close()
    await stands_at(path, 2 if persist else 1)


@pytest.mark.parametrize("persist", [False, True], ids=["failed", "failed but persisted"])
@pytest.mark.parametrize("step", FINISH_STEPS)
async def test_a_fault_while_finishing_leaves_it_begun(tmp_path: Path, step: str, *, persist: bool) -> None:
    journal, faults = await started(tmp_path / "journal.db")
    faults.fail_at, faults.persist = step, persist

    error = await refused(finish, journal, 1)

    assert error.code == "journal.unavailable"
    faults.fail_at = ""
    assert await journal.outcome("request 1", 0, 1) == Outcome(state=OutcomeState.BEGUN)
    await finish(journal, 1)
    assert await journal.outcome("request 1", 0, 1) == Outcome(state=OutcomeState.SIGNED, signature=b"signature")
    await journal.close()


async def test_a_failing_rollback_is_made_up_for(tmp_path: Path) -> None:
    class TwoFaults(Faults):
        def connect(self, path: str) -> sqlite3.Connection:
            outer = self

            class Connection(sqlite3.Connection):
                def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                    if outer.fail_at and sql.startswith((outer.fail_at, "ROLLBACK")):
                        raise sqlite3.OperationalError("disk I/O error")
                    return super().execute(sql, parameters)

            return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)

    faults = TwoFaults()
    journal = await SqliteJournal.open(tmp_path / "journal.db", connect=faults.connect, origin="hub.example")
    await begin(journal, 1)
    faults.fail_at = "INSERT INTO operation "

    errors = [await refused(begin, journal, 2)]
    with pytest.raises(UnavailableError):
        await journal.state()
    faults.fail_at = ""

    assert errors[0].code == "journal.unavailable"
    assert (await journal.state()).size == 1
    await journal.close()
    await stands_at(tmp_path / "journal.db", 1)


async def test_beginning_is_synced_and_finishing_is_not(tmp_path: Path) -> None:
    journal, faults = await started(tmp_path / "journal.db")
    faults.seen.clear()

    await finish(journal, 1)
    await begin(journal, 2)
    await journal.see_checkpoint("note 3", 3, ROOT)

    levels = [sql for sql in faults.seen if sql.startswith("PRAGMA synchronous")]
    assert levels == [
        "PRAGMA synchronous = NORMAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = FULL",
    ]
    await journal.close()


async def test_a_refusal_leaves_no_transaction_open(tmp_path: Path) -> None:
    journal, faults = await started(tmp_path / "journal.db")
    faults.seen.clear()

    error = await refused(begin, journal, 0)

    assert error.code == "journal.rewound"
    assert faults.seen[-1] == "ROLLBACK"
    await journal.close()


async def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE something (id INTEGER)")
    other.close()

    with pytest.raises(ConfigError) as caught:
        await SqliteJournal.open(path, origin="hub.example")

    assert caught.value.code == "store.foreign"


async def test_a_place_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        await SqliteJournal.open(tmp_path / "none" / "journal.db", origin="hub.example")

    assert caught.value.code == "journal.unavailable"
