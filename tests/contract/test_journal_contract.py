# SPDX-License-Identifier: Apache-2.0
"""The contract of the agent's journal (ports/journal.py), run on every adapter."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from privyseal.errors import (
    ConflictError,
    DeniedError,
    LogIntegrityError,
    MalformedInputError,
    UnavailableError,
)
from privyseal.ports.journal import (
    AgentJournal,
    JournalEntry,
    JournalPart,
    JournalState,
    JournalUse,
    Outcome,
    OutcomeState,
)
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.tree import EMPTY_ROOT

ROOT = b"r" * 32


@pytest.fixture(params=["sqlite file", "sqlite memory"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AgentJournal]:
    path = tmp_path / "journal.db" if request.param == "sqlite file" else ":memory:"
    opened = await SqliteJournal.open(path, origin="hub.example")
    yield opened
    await opened.close()


def part(request_id: str = "request", *items: tuple[int, bytes]) -> JournalPart:
    return JournalPart(request_id=request_id, items=items or ((0, b"intent 0"), (1, b"intent 1")))


async def begin(
    journal: AgentJournal,
    *parts: JournalPart,
    request_id: str = "request",
    items: tuple[tuple[int, bytes], ...] = (),
    **changes: Any,
) -> list[str]:
    """Begin a job; for each part the code of its refusal, or nothing."""
    job: dict[str, Any] = {
        "checkpoint_note": "note 10",
        "size": 10,
        "root": ROOT,
        "token": "lab",
        "profile": "demo",
        "fence": 3,
        "parts": parts or (part(request_id, *items),),
    }
    refused = await journal.begin(**{**job, **changes})
    return ["" if conflict is None else conflict.code for conflict in refused]


async def finish(journal: AgentJournal, item: int = 0, fence: int = 3, **changes: Any) -> None:
    end: dict[str, Any] = {"signature": b"signature", "branch": "", "code": "", "message": ""}
    await journal.finish("request", item, fence, **{**end, **changes})


async def test_a_new_journal_holds_nothing(journal: AgentJournal) -> None:
    assert await journal.state() == JournalState(checkpoint_note=None, size=0, root=EMPTY_ROOT)
    assert await journal.max_fence("lab") == 0
    assert await journal.outcome("request", 0, 3) is None
    assert await journal.entries(0, 10) == ()


async def test_what_was_begun_is_remembered(journal: AgentJournal) -> None:
    await begin(journal)

    assert await journal.state() == JournalState(checkpoint_note="note 10", size=10, root=ROOT)
    assert await journal.max_fence("lab") == 3
    assert await journal.max_fence("other") == 0
    assert await journal.outcome("request", 1, 3) == Outcome(state=OutcomeState.BEGUN)
    assert await journal.outcome("request", 2, 3) is None
    assert await journal.outcome("request", 1, 4) is None


async def test_begun_operations_are_listed_in_their_order(journal: AgentJournal) -> None:
    await begin(journal)
    await begin(journal, checkpoint_note="note 12", size=12, fence=4, items=((1, b"again"),))

    entries = await journal.entries(0, 10)

    assert entries[0] == JournalEntry(
        profile="demo",
        request_id="request",
        item=0,
        fence=3,
        entry=b"intent 0",
        checkpoint_note="note 10",
    )
    assert [(entry.item, entry.fence, entry.checkpoint_note) for entry in entries] == [
        (0, 3, "note 10"),
        (1, 3, "note 10"),
        (1, 4, "note 12"),
    ]
    assert await journal.entries(2, 10) == entries[2:]
    assert await journal.entries(0, 1) == entries[:1]


async def test_an_operation_is_begun_once(journal: AgentJournal) -> None:
    await begin(journal)

    refused = await begin(journal, size=11, items=((2, b"new"), (1, b"used")))

    assert refused == ["journal.used"]
    assert await journal.outcome("request", 2, 3) is None
    assert (await journal.state()).size == 11, "the checkpoint was seen"


async def test_the_same_item_twice_in_one_job_is_refused(journal: AgentJournal) -> None:
    assert await begin(journal, items=((0, b"one"), (0, b"two"))) == ["journal.used"]
    assert await journal.outcome("request", 0, 3) is None


async def test_what_was_signed_is_begun_under_no_other_fence(journal: AgentJournal) -> None:
    await begin(journal)
    await finish(journal, 0)

    assert await begin(journal, fence=4, items=((1, b"open"), (0, b"signed"))) == ["journal.signed"]

    assert await journal.outcome("request", 1, 4) is None
    assert await journal.max_fence("lab") == 3


async def test_what_failed_or_ended_unknown_may_be_begun_under_another_fence(journal: AgentJournal) -> None:
    await begin(journal)
    await finish(journal, 0, signature=b"", branch="token", code="token.removed", message="no token")

    await begin(journal, fence=4, items=((0, b"failed"), (1, b"unknown")))

    assert await journal.outcome("request", 0, 4) == Outcome(state=OutcomeState.BEGUN)


async def test_a_stale_fence_is_refused(journal: AgentJournal) -> None:
    await begin(journal)

    with pytest.raises(DeniedError) as caught:
        await begin(journal, request_id="other", fence=2)
    with pytest.raises(DeniedError):
        await begin(journal, request_id="other", profile="another of the token", fence=2)
    await begin(journal, request_id="other", token="other", fence=2)
    await begin(journal, request_id="third", fence=3)

    assert caught.value.code == "journal.stale_fence"
    assert await journal.max_fence("lab") == 3


async def test_a_part_that_must_not_be_begun_takes_no_other_part_down(journal: AgentJournal) -> None:
    await begin(journal, part("used"), part("signed"))
    await journal.finish("signed", 0, 3, signature=b"signature", branch="", code="", message="")

    parts = (part("first"), part("used"), part("twice", (0, b""), (0, b"")), part("first", (1, b"")), part("last"))
    refused = await begin(journal, *parts)
    later = await begin(journal, part("signed"), part("used"), fence=4)

    assert refused == ["", "journal.used", "journal.used", "journal.used", ""]
    assert later == ["journal.signed", ""]
    begun = [(entry.request_id, entry.item) for entry in await journal.entries(4, 10)]
    assert begun == [(name, item) for name in ("first", "last", "used") for item in (0, 1)]


async def test_what_was_not_begun_raises_no_fence(journal: AgentJournal) -> None:
    await begin(journal)
    await finish(journal, 0)

    assert await begin(journal, fence=9, items=((0, b"signed"),)) == ["journal.signed"]

    assert await journal.max_fence("lab") == 3


@pytest.mark.parametrize("changes", [{"size": 9}, {"root": b"x" * 32}, {"size": 0, "root": EMPTY_ROOT}])
async def test_a_log_that_was_wound_back_is_refused(journal: AgentJournal, changes: dict[str, Any]) -> None:
    await begin(journal)

    with pytest.raises(LogIntegrityError) as begun:
        await begin(journal, fence=4, **changes)
    with pytest.raises(LogIntegrityError) as seen:
        await journal.see_checkpoint("note", changes.get("size", 10), changes.get("root", ROOT))

    assert (begun.value.code, seen.value.code) == ("journal.rewound", "journal.rewound")
    assert await journal.max_fence("lab") == 3
    assert (await journal.state()).checkpoint_note == "note 10"


async def test_a_newer_checkpoint_is_held_without_a_job(journal: AgentJournal) -> None:
    await journal.see_checkpoint("note 4", 4, ROOT)
    await journal.see_checkpoint("note 5", 5, b"s" * 32)
    await journal.see_checkpoint("note 5 with a cosignature", 5, b"s" * 32)

    assert await journal.state() == JournalState(checkpoint_note="note 5", size=5, root=b"s" * 32)


async def test_a_checkpoint_of_the_empty_log_is_held(journal: AgentJournal) -> None:
    await journal.see_checkpoint("note 0", 0, EMPTY_ROOT)

    assert (await journal.state()).checkpoint_note == "note 0"


async def test_the_end_of_an_operation_is_remembered(journal: AgentJournal) -> None:
    await begin(journal)

    await finish(journal)
    await finish(journal, 1, signature=b"", branch="token", code="token.failed", message="no")

    assert await journal.outcome("request", 0, 3) == Outcome(state=OutcomeState.SIGNED, signature=b"signature")
    assert await journal.outcome("request", 1, 3) == Outcome(
        state=OutcomeState.FAILED, branch="token", code="token.failed", message="no"
    )


async def test_an_operation_ends_once(journal: AgentJournal) -> None:
    await begin(journal)
    await finish(journal)
    await finish(journal)

    with pytest.raises(ConflictError) as other:
        await finish(journal, signature=b"another")
    with pytest.raises(ConflictError) as never:
        await finish(journal, fence=4)

    assert (other.value.code, never.value.code) == ("journal.finished", "journal.not_begun")
    assert await journal.outcome("request", 0, 3) == Outcome(state=OutcomeState.SIGNED, signature=b"signature")


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 2**63},
        {"size": -1},
        {"fence": 2**70},
        {"items": ((-1, b""),)},
        {"items": ((2**63, b""),)},
        {"items": ((0, b"x" * 65_536),)},
        {"root": b"short"},
    ],
)
async def test_what_cannot_be_stored_is_refused(journal: AgentJournal, changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedInputError) as caught:
        await begin(journal, **changes)

    assert caught.value.code == "journal.range"
    assert (await journal.state()).size == 0


async def test_numbers_out_of_range_are_refused_everywhere(journal: AgentJournal) -> None:
    for call in (
        journal.outcome("request", 2**63, 0),
        journal.entries(-1, 1),
        journal.entries(0, 2**64),
        journal.see_checkpoint("note", 2**63, ROOT),
        finish(journal, fence=-1),
    ):
        with pytest.raises(MalformedInputError) as caught:
            await call
        assert caught.value.code == "journal.range"


async def test_uses_are_numbered_whatever_became_of_them(journal: AgentJournal) -> None:
    assert (await journal.last_use(), await journal.uses(0, 10)) == (0, ())
    await begin(journal, items=((0, b"signed"), (1, b"failed"), (2, b"lost")))
    await finish(journal, 0)
    await finish(journal, 1, signature=b"", branch="token", code="token.failed", message="no")
    await journal.follow("another.example")
    await begin(journal, request_id="later", items=((0, b"later"),))

    uses = (
        JournalUse(number=1, entry=b"signed", state=OutcomeState.SIGNED),
        JournalUse(number=2, entry=b"failed", state=OutcomeState.FAILED),
        JournalUse(number=3, entry=b"lost", state=OutcomeState.BEGUN),
        JournalUse(number=4, entry=b"later", state=OutcomeState.BEGUN),
    )
    assert await journal.uses(0, 10) == uses
    assert await journal.uses(2, 1) == uses[2:3]
    assert await journal.uses(4, 10) == ()
    assert await journal.last_use() == 4


async def test_a_closed_journal_says_so(journal: AgentJournal) -> None:
    await journal.close()
    await journal.close()

    with pytest.raises(UnavailableError) as caught:
        await journal.state()

    assert caught.value.code == "journal.closed"


async def numbers(journal: AgentJournal) -> list[tuple[int, bytes]]:
    return [(event.seq, event.entry) for event in await journal.events(100)]


async def test_events_are_numbered_and_kept_until_they_are_recorded(journal: AgentJournal) -> None:
    for entry in (b"one", b"two", b"three"):
        await journal.add_event(entry)

    assert await numbers(journal) == [(1, b"one"), (2, b"two"), (3, b"three")]
    assert len(await journal.events(2)) == 2
    await journal.events_recorded(2)
    assert await numbers(journal) == [(3, b"three")]
    await journal.events_recorded(3)
    await journal.add_event(b"four")
    assert await numbers(journal) == [(4, b"four")], "no number is given twice"


async def test_a_journal_that_was_lost_goes_on_behind_the_hub(journal: AgentJournal) -> None:
    for entry in (b"one", b"two"):
        await journal.add_event(entry)
    await journal.events_recorded(40)

    assert await numbers(journal) == [(41, b"one"), (42, b"two")]
    await journal.events_recorded(42)
    await journal.add_event(b"three")
    assert await numbers(journal) == [(43, b"three")]


async def test_a_new_journal_goes_on_behind_the_hub(journal: AgentJournal) -> None:
    await journal.events_recorded(7)
    await journal.add_event(b"one")

    assert await numbers(journal) == [(8, b"one")]


async def test_what_is_remembered_is_recalled(journal: AgentJournal) -> None:
    assert await journal.recall("token") is None
    await journal.remember("token", b"1")
    await journal.remember("token", b"2")

    assert await journal.recall("token") == b"2"


async def test_an_event_that_no_log_takes_is_refused(journal: AgentJournal) -> None:
    with pytest.raises(MalformedInputError) as caught:
        await journal.add_event(bytes(65_536))

    assert caught.value.code == "journal.range"
