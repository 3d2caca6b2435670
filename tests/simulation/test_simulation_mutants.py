# SPDX-License-Identifier: Apache-2.0
"""The simulation can fail: with a rule of the protocol taken out of the code, a few hundred seeds find it."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
from msgspec.structs import replace

from privyseal.agent import operations
from privyseal.hub import jobs
from privyseal.hub.agreement import Agreement
from privyseal.hub.entries import result_entry
from privyseal.hub.guarded_store import GuardedStore
from privyseal.hub.services import views
from privyseal.hub.services.settling import Answered, Settler
from privyseal.ports.journal import OutcomeState
from privyseal.ports.queue import Job
from privyseal.ports.store import ProfileRow, Tx
from privyseal.storage import connection, journal_tables
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.checkpoint import open_checkpoint
from privyseal.tlog.entry import encode_entry
from privyseal.wire.jobs import ItemDone
from simulated.site import first_day
from simulated.world import World, run_schedule, silence


def caught(rules: set[str], count: int, *, first: int = 0) -> tuple[int, set[str]]:
    """The first seed whose schedule breaks one of the rules, and those that it breaks."""
    for seed in range(first, first + count):
        violated = {one.split(":")[0] for one in run_schedule(seed).violations}
        if violated & rules:
            return seed, violated
    pytest.fail(f"{count} schedules found nothing of {rules}")


def test_released_before_it_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async def settle_first(self: Settler, _profile: ProfileRow, answered: Sequence[Answered]) -> bool:
        settled: list[tuple[Job, Answered]] = []

        async def store(tx: Tx) -> None:
            for one in answered:
                job = await tx.job(one.job.request_id, one.job.item)
                became = jobs.settle(job, asked=one.job, answer=one.answer)
                if job is not None and became is not None:
                    settled.append((job, one))
                    await tx.put_job(became.recorded(one.job.intent_index or 0))

        async def record(tx: Tx) -> None:
            for job, one in settled:
                if isinstance(one.answer, ItemDone):
                    entry = result_entry(job, one.intent, await tx.now_ms(), signature=one.answer.signature)
                    await tx.append(encode_entry(entry))

        await self.write(store)
        for one in answered:
            self._changed(one.request.id)
        await self.write(record)
        return False

    monkeypatch.setattr(Settler, "settle", settle_first)
    assert caught({"I1"}, 100)


def test_a_commit_that_is_answered_before_it_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    relaxed = tuple(pragma.replace("synchronous = FULL", "synchronous = NORMAL") for pragma in connection._PRAGMAS)
    monkeypatch.setattr(connection, "_PRAGMAS", relaxed)
    assert caught({"I1", "I2"}, 100)


def test_no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: SqliteJournal, *_: Any, parts: tuple[Any, ...] = (), **__: Any) -> tuple[None, ...]:
        return tuple(None for _ in parts)

    monkeypatch.setattr(SqliteJournal, "begin", forget)
    monkeypatch.setattr(SqliteJournal, "finish", forget)
    assert caught({"I3"}, 300)


def test_a_journal_that_is_not_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = SqliteJournal._commit
    monkeypatch.setattr(SqliteJournal, "_commit", lambda self, write, durable: commit(self, write, durable=False))
    assert caught({"I3", "I5"}, 600)


def test_a_token_use_that_was_begun_and_is_told_as_never(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operations._OUTCOME_STATES, OutcomeState.BEGUN, "never")
    assert caught({"I5"}, 300)


def test_an_unknown_outcome_that_is_repeated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_MAX_UNKNOWN", 99)
    assert caught({"P4"}, 400)


def test_an_unknown_outcome_that_is_taken_for_no_use(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = operations.refusal

    def not_unknown(*arguments: Any) -> Any:
        return replace(refusal(*arguments), unknown=False)

    monkeypatch.setattr("privyseal.agent.job_run.refusal", not_unknown)
    assert caught({"I5"}, 300)


def test_a_signature_of_an_older_fence_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal signs an item that it has signed before, and used keys again."""
    monkeypatch.setattr(journal_tables, "check_begin", lambda *_: None)
    monkeypatch.setitem(operations._OUTCOME_STATES, OutcomeState.BEGUN, "never")
    monkeypatch.setattr(journal_tables, "_BEGIN", journal_tables._BEGIN.replace("INSERT", "INSERT OR REPLACE"))
    assert caught({"I3"}, 300, first=700)


def test_items_that_are_told_before_they_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "has_ended", lambda _: True)
    assert caught({"end"}, 100)


# -- a hub that shows another log -----------------------------------------------------------------------------------


class Restored(World):
    """A hub whose whole directory is brought back from the first day, `head.checkpoint` too, and who asks no agent."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.chaos.left = 0
        self.loop.world.call_at(30.0, self._restore)

    def _restore(self) -> None:
        assert self.hub is not None
        self.before = checkpoints(self.hub_database.image, "log_checkpoint", "note")
        self.hub.process.kill()
        self.hub_database.image = first_day().hub_image
        self.head_disk.restore(first_day().head_file)

    @property
    def forked(self) -> bool:
        """Whether the agent signed under checkpoints of both logs that only one of them has."""
        after = checkpoints(self.hub_database.image, "log_checkpoint", "note")
        signed = checkpoints(self.journal_database.image, "operation", "checkpoint_note")
        return bool(signed - self.before) and bool(signed - after)


def checkpoints(image: bytes, table: str, column: str) -> set[str]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(image)
        return {note for (note,) in connection.execute(f"SELECT {column} FROM {table}")}


def signed_under_two_logs(seeds: range) -> list[int]:
    return [seed for seed in seeds if restored(seed).forked]


def restored(seed: int) -> Restored:
    with silence():
        world = Restored(seed)
        world.run()
    return world


@pytest.fixture
def _no_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def believe(self: Agreement, size: int, root: bytes) -> None:
        self._store.agree()

    monkeypatch.setattr(Agreement, "check_agent_head", believe)


@pytest.mark.usefixtures("_no_questions")
def test_an_agent_signs_under_one_log_whatever_its_hub_shows() -> None:
    assert signed_under_two_logs(range(60)) == []


@pytest.mark.usefixtures("_no_questions")
def test_an_agent_that_heeds_no_consistency_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    def signature_alone(job: Any, _held: Any, bundle: Any, **_: Any) -> Any:
        return open_checkpoint(job.checkpoint, origin=bundle.origin, verifiers=(bundle.log_key,))

    monkeypatch.setattr("privyseal.agent.executor.check_checkpoint", signature_alone)
    assert signed_under_two_logs(range(60))


# -- what the simulation has found -------------------------------------------------------------------------------


def test_a_commit_in_doubt_that_only_its_caller_hears_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def write(self: GuardedStore, operation: Any) -> Any:
        if not self.agreed:
            raise self.refusal()
        return await self._store.write(operation)

    monkeypatch.setattr(GuardedStore, "write", write)
    assert caught({"end"}, 300)


def test_a_journal_in_doubt_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privyseal.agent.link.journal_is_lost", lambda _: False)
    monkeypatch.setattr("privyseal.agent.executor.journal_is_lost", lambda _: False)
    assert caught({"end"}, 50, first=990)
