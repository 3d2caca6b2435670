# SPDX-License-Identifier: Apache-2.0
"""The custodian of a token, over a real journal: what it tells, what it remembers, and what a crash makes of it."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from log_samples import intent_at, sha
from privyseal.agent.custody import Custodian, accept_counter, strangers, system_moment
from privyseal.agent.custody_spans import Moment
from privyseal.agent.outbox import Outbox
from privyseal.errors import ConflictError
from privyseal.ports.journal import JournalPart
from privyseal.ports.token import KeyCounter, PinState, ReaderUse, TokenInfo, TokenKey
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.entry import Custody, Entry, Freeze, Reconcile, encode_entry, parse_entry

START = 1_700_000_000_000
INFO = TokenInfo(
    label="hub", serial="0001", manufacturer="ACME", model="1", hardware=True, pin_state=PinState.OK
)  # fmt: skip
KEY = TokenKey(key_id=b"\x01", label="release", spki=b"spki", certificates=())
NAME = hashlib.sha256(KEY.spki).hexdigest()


@dataclass
class Clocks:
    """Time that passes when told to."""

    now_ms: int = 0
    shift_ms: int = START

    def __call__(self) -> Moment:
        return Moment(wall_ms=self.now_ms + self.shift_ms, awake_ms=self.now_ms, boot_ms=self.now_ms)


@dataclass
class Site:
    """One agent's journal, and the custodian of its token."""

    path: Path
    journal: SqliteJournal
    clocks: Clocks = field(default_factory=Clocks)
    requests: int = 0
    told: int = 0

    async def custodian(self) -> Custodian:
        outbox = Outbox(journal=self.journal, clock=lambda: self.clocks().wall_ms, request_key=b"a" * 32)
        return await Custodian.open(name="token", journal=self.journal, outbox=outbox, clocks=self.clocks)

    async def again(self) -> Custodian:
        """After a crash: nothing but the journal is left."""
        await self.journal.close()
        self.journal = await SqliteJournal.open(self.path, origin="hub.example")
        return await self.custodian()

    async def entries(self) -> list[Entry]:
        """What was told since the last time."""
        events = (await self.journal.events(10_000))[self.told :]
        self.told += len(events)
        return [parse_entry(event.entry) for event in events]

    async def intervals(self) -> list[tuple[int, int, str, str]]:
        return [
            (one.since - START, one.until - START, one.state, one.reason)
            for one in await self.entries()
            if isinstance(one, Custody)
        ]

    async def begin(self, key: str = NAME) -> int:
        """A token operation is about to run."""
        self.requests += 1
        intent = replace(intent_at(1, self.requests), key=key)
        await self.journal.begin(
            checkpoint_note=f"note {self.requests}",
            size=self.requests,
            root=bytes(32),
            token="lab",
            profile="release",
            fence=1,
            parts=(JournalPart(request_id=intent.request, items=((0, encode_entry(intent)),)),),
        )
        return self.requests

    async def end(self, number: int, *, signature: bytes = b"s") -> None:
        await self.journal.finish(sha(number), 0, 1, signature=signature, branch="", code="", message="")

    async def sign(self, times: int = 1, key: str = NAME) -> None:
        for _ in range(times):
            await self.end(await self.begin(key))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    path = tmp_path / "journal.db"
    site = Site(path=path, journal=await SqliteJournal.open(path, origin="hub.example"))
    yield site
    await site.journal.close()


async def looks(site: Site, custodian: Custodian, seconds: int, *, others: int | None = 0, events: int = 1) -> None:
    """A look every five seconds."""
    for _ in range(seconds // 5):
        site.clocks.now_ms += 5_000
        await custodian.looked(healthy=True, others=others, card_events=events)


async def start(site: Site) -> Custodian:
    custodian = await site.custodian()
    await custodian.attached(INFO, (KEY,))
    await custodian.looked(healthy=True, others=0, card_events=1)
    return custodian


async def test_a_quiet_hour_is_told_as_proven(site: Site) -> None:
    custodian = await start(site)
    await looks(site, custodian, 3_600)

    (entry,) = await site.entries()
    assert entry == Custody(
        ts=START + 3_600_000,
        agent=hashlib.sha256(b"a" * 32).hexdigest(),
        seq=0,
        at=START + 3_600_000,
        token="0001",
        key=NAME,
        since=START,
        until=START + 3_600_000,
        state="proven",
    )


async def test_each_key_of_the_token_is_told_of(site: Site) -> None:
    custodian = await site.custodian()
    other = TokenKey(key_id=b"\x02", label="other", spki=b"other", certificates=())
    await custodian.attached(INFO, (KEY, other))
    await custodian.looked(healthy=True, others=0, card_events=1)
    await looks(site, custodian, 10)
    await custodian.stopping()

    assert {one.key for one in await site.entries() if isinstance(one, Custody)} == {
        NAME,
        hashlib.sha256(b"other").hexdigest(),
    }


async def test_an_orderly_stop_leaves_a_gap_that_says_so(site: Site) -> None:
    custodian = await start(site)
    await looks(site, custodian, 30)
    await custodian.stopping()
    assert await site.intervals() == [(0, 30_000, "proven", "")]

    site.clocks.now_ms += 100_000
    custodian = await site.again()
    await custodian.attached(INFO, (KEY,))
    await custodian.looked(healthy=True, others=0, card_events=1)
    await looks(site, custodian, 30)
    await custodian.stopping()

    assert await site.intervals() == [(30_000, 130_000, "unproven", "stopped"), (130_000, 160_000, "proven", "")]


async def test_a_crash_makes_unproven_what_was_not_remembered(site: Site) -> None:
    custodian = await start(site)
    await looks(site, custodian, 100)

    site.clocks.now_ms += 20_000
    custodian = await site.again()
    await custodian.attached(INFO, (KEY,))
    await custodian.looked(healthy=True, others=0, card_events=1)
    await looks(site, custodian, 60)
    await custodian.stopping()

    proven, gap, rest = await site.intervals()
    assert proven[2:] == ("proven", "")
    assert 40_000 <= proven[1] <= 100_000, "at most a minute is lost"
    assert (gap[0], *gap[2:]) == (proven[1], "unproven", "crashed")
    assert gap[1] >= 120_000
    assert rest[2] == "proven"


@pytest.mark.parametrize(
    ("others", "events", "reason"), [(1, 1, "shared"), (None, 1, "unwatched"), (0, 3, "reinserted")]
)
async def test_what_speaks_against_it_is_told(site: Site, others: int | None, events: int, reason: str) -> None:
    custodian = await start(site)
    await looks(site, custodian, 30)
    await looks(site, custodian, 5, others=others, events=events)
    await looks(site, custodian, 90, events=events)
    await custodian.stopping()

    assert await site.intervals() == [
        (0, 30_000, "proven", ""),
        (30_000, 90_000, "unproven", reason),
        (90_000, 125_000, "proven", ""),
    ]


async def test_another_worker_is_told(site: Site) -> None:
    custodian = await start(site)
    await looks(site, custodian, 30)
    custodian.worker_changed()
    await looks(site, custodian, 90)
    await custodian.stopping()

    assert [one[3] for one in await site.intervals()] == ["", "worker", ""]


async def test_a_token_that_is_away_is_absent_until_it_was_seen_again(site: Site) -> None:
    custodian = await start(site)
    await looks(site, custodian, 30)
    for _ in range(20):
        site.clocks.now_ms += 5_000
        await custodian.detached()
    site.clocks.now_ms += 5_000
    await custodian.attached(INFO, (KEY,))
    await looks(site, custodian, 30)
    await custodian.stopping()

    assert await site.intervals() == [
        (0, 30_000, "proven", ""),
        (30_000, 140_000, "unproven", "absent"),
        (140_000, 165_000, "proven", ""),
    ]


async def test_a_software_token_is_never_proven(site: Site) -> None:
    custodian = await site.custodian()
    software = TokenInfo(
        label="hub", serial="0001", manufacturer="Privyseal", model="1", hardware=False, pin_state=PinState.OK
    )  # fmt: skip
    await custodian.attached(software, (KEY,))
    await custodian.looked(healthy=True, others=None, card_events=None)
    await looks(site, custodian, 30)
    await custodian.stopping()

    assert await site.intervals() == [(0, 30_000, "unproven", "software")]


async def test_another_token_in_its_place_begins_anew(site: Site) -> None:
    custodian = await start(site)
    await looks(site, custodian, 30)
    other = TokenInfo(
        label="hub", serial="0002", manufacturer="ACME", model="1", hardware=True, pin_state=PinState.OK
    )  # fmt: skip
    await custodian.attached(other, (TokenKey(key_id=b"\x01", label="x", spki=b"other", certificates=()),))
    await looks(site, custodian, 30)
    await custodian.stopping()

    first, second = (one for one in await site.entries() if isinstance(one, Custody))
    assert (first.token, first.key, second.token, second.key) == (
        "0001",
        NAME,
        "0002",
        hashlib.sha256(b"other").hexdigest(),
    )


def counter(count: int) -> tuple[KeyCounter, ...]:
    return (KeyCounter(key_id=KEY.key_id, count=count, source="card"),)


async def verdicts(site: Site) -> list[tuple[int, int, int, int, str] | tuple[bool, str]]:
    found: list[tuple[int, int, int, int, str] | tuple[bool, str]] = []
    for one in await site.entries():
        if isinstance(one, Reconcile):
            found.append((one.enrolled, one.now, one.results, one.unknowns, one.verdict))
        if isinstance(one, Freeze):
            found.append((one.frozen, one.code))
    return found


async def test_what_the_agent_signed_matches(site: Site) -> None:
    custodian = await start(site)
    await custodian.reconcile(counter(10))
    await site.sign(3)
    await site.sign(2, key=sha(99))
    await custodian.reconcile(counter(13))
    assert await verdicts(site) == [(10, 10, 0, 0, "match")], "a match is told once an hour"

    site.clocks.now_ms += 3_600_000
    lost = await site.begin()
    await custodian.reconcile(counter(14))
    assert await verdicts(site) == [(10, 14, 3, 1, "match")]

    await site.end(lost)
    site.clocks.now_ms += 3_600_000
    await custodian.reconcile(counter(14))
    assert await verdicts(site) == [(10, 14, 4, 0, "match")]
    assert custodian.frozen == frozenset()


@pytest.mark.parametrize("crash", [False, True])
async def test_a_use_behind_the_agents_back_freezes_the_key_for_good(site: Site, crash: bool) -> None:  # noqa: FBT001
    custodian = await start(site)
    await custodian.reconcile(counter(10))
    await site.sign(3)
    if crash:
        custodian = await site.again()
        await custodian.attached(INFO, (KEY,))

    await custodian.reconcile(counter(14))

    assert custodian.frozen == {NAME}
    assert await verdicts(site) == [
        (10, 10, 0, 0, "match"),
        (10, 14, 3, 0, "mismatch"),
        (True, "token.counter_mismatch"),
    ]
    await site.sign()
    custodian = await site.again()
    await custodian.attached(INFO, (KEY,))
    assert custodian.frozen == {NAME}, "across a restart"
    await custodian.reconcile(counter(14))
    assert custodian.frozen == {NAME}, "also if the numbers happen to fit again"


@pytest.mark.parametrize("beside", [False, True])
async def test_a_person_accepts_a_counter(site: Site, beside: bool) -> None:  # noqa: FBT001
    custodian = await start(site)
    await custodian.reconcile(counter(10))
    await custodian.reconcile(counter(12))
    await verdicts(site)

    if beside:
        other = await SqliteJournal.open(site.path, origin="hub.example")
        await accept_counter(other, "token", NAME)
        await other.close()
    else:
        await custodian.accept(NAME)
    await custodian.reconcile(())
    assert custodian.frozen == {NAME}, "no counter was read"
    await custodian.reconcile(counter(12))

    assert custodian.frozen == frozenset()
    assert await verdicts(site) == [(False, "token.counter_accepted"), (12, 12, 0, 0, "match")]
    for _ in range(2):
        await custodian.reconcile(counter(13))
        assert custodian.frozen == {NAME}, "accepted once, not for ever"


async def test_what_was_said_before_a_key_was_frozen_does_not_count(site: Site) -> None:
    custodian = await start(site)
    await custodian.reconcile(counter(10))
    await site.journal.remember("custody accepted token", msgspec.json.encode((NAME,)))

    for _ in range(2):
        await custodian.reconcile(counter(12))
        assert custodian.frozen == {NAME}


async def test_only_a_frozen_key_can_be_accepted(site: Site) -> None:
    custodian = await start(site)
    await custodian.reconcile(counter(10))

    for accepting in (custodian.accept(NAME), accept_counter(site.journal, "token", NAME)):
        with pytest.raises(ConflictError) as caught:
            await accepting
        assert caught.value.code == "key.not_frozen"


async def test_what_was_prepared_at_the_enrolment_counts_when_it_is_signed(site: Site) -> None:
    custodian = await start(site)
    prepared = await site.begin()
    await custodian.reconcile(counter(10))
    await site.end(prepared)

    await custodian.reconcile(counter(11))

    assert custodian.frozen == frozenset()


async def test_a_counter_of_a_key_that_is_not_there_says_nothing(site: Site) -> None:
    custodian = await start(site)

    await custodian.reconcile((KeyCounter(key_id=b"\x09", count=1, source="card"),))

    assert await site.entries() == []


def test_strangers_are_who_is_none_of_ours() -> None:
    ours = ReaderUse(own=2, connections=5, card_events=1)

    assert strangers(None, ()) is None
    assert strangers(ours, ()) == 3
    assert strangers(ours, (ReaderUse(own=3, connections=5, card_events=1),)) == 0
    assert strangers(ours, (ReaderUse(own=9, connections=5, card_events=1),)) == 0


def test_the_hosts_clocks_run() -> None:
    first, second = system_moment(), system_moment()

    assert second.boot_ms >= first.boot_ms >= first.awake_ms - 1
    assert second.wall_ms > START
