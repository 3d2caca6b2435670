# SPDX-License-Identifier: Apache-2.0
"""What agents tell of their tokens is on record once, in their order, under the hub's time and the agent's own key."""

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from failing_journal import Faults
from log_samples import genesis
from privyseal.agent.outbox import EntryMaker, Outbox
from privyseal.errors import DeniedError, MalformedInputError
from privyseal.hub.services.agent_events import AgentEvents
from privyseal.ports.store import Enrolment
from privyseal.storage.journal import SqliteJournal
from privyseal.storage.sqlite import SqliteStore
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.entry import Admin, Entry, TokenEvent, encode_entry, parse_entry
from privyseal.wire.link import AgentEvent, Events

KEY = b"a" * 32
LINK = object()
AGENT = Enrolment(
    role="agent",
    name="pi",
    certificate_sha256=bytes(32),
    request_key=KEY,
    profiles=(),
    salt=b"salt",
    entry_index=0,
)


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(
        ":memory:", origin="hub.example", log_key=Ed25519PrivateKey.generate(), clock=lambda: 7, head_path=None
    )
    yield opened
    await opened.close()


@pytest.fixture
async def journal() -> AsyncIterator[SqliteJournal]:
    opened = await SqliteJournal.open(":memory:", origin="hub.example")
    yield opened
    await opened.close()


def attached(at_ms: int, agent: str = "") -> TokenEvent:
    return TokenEvent(ts=at_ms, agent=agent, seq=0, at=at_ms, token="0001", event="attached")


def event(seq: int, at_ms: int = 3) -> AgentEvent:
    return AgentEvent(seq=seq, entry=encode_entry(attached(at_ms)))


async def log(store: SqliteStore) -> list[Entry]:
    return [parse_entry(data) for data in await store.read(lambda tx: tx.entries(0, 1000))]


async def numbers(store: SqliteStore) -> list[int]:
    return [entry.seq for entry in await log(store) if isinstance(entry, TokenEvent)]


async def test_the_hub_says_when_and_who(store: SqliteStore) -> None:
    assert await AgentEvents(store).record(AGENT, (event(1),)) == 1

    (entry,) = await log(store)
    assert isinstance(entry, TokenEvent)
    assert (entry.ts, entry.at, entry.seq, entry.agent) == (7, 3, 1, hashlib.sha256(KEY).hexdigest())


async def test_what_is_told_again_is_on_record_once(store: SqliteStore) -> None:
    events = AgentEvents(store)
    for told in ((1, 2), (1, 2, 3), (3,), (2,)):
        await events.record(AGENT, tuple(event(seq) for seq in told))

    assert await numbers(store) == [1, 2, 3]
    assert await events.recorded(AGENT) == 3


async def test_a_number_that_is_left_out_is_refused(store: SqliteStore) -> None:
    with pytest.raises(MalformedInputError) as caught:
        await AgentEvents(store).record(AGENT, (event(1), event(3)))

    assert caught.value.code == "link.event_gap"
    assert await numbers(store) == [], "nothing of a message that is wrong"


async def test_a_log_that_was_begun_anew_goes_on_where_the_agent_is(store: SqliteStore) -> None:
    events = AgentEvents(store, continues=True)
    await events.record(AGENT, (event(58), event(59)))

    assert await numbers(store) == [58, 59]
    with pytest.raises(MalformedInputError):
        await events.record(AGENT, (event(61),))


@pytest.mark.parametrize("first", [2, 58, 2**53 - 1])
async def test_no_agent_can_spoil_the_log_for_whoever_checks_it(store: SqliteStore, first: int) -> None:
    await store.write(lambda tx: tx.append(encode_entry(genesis())))
    events = AgentEvents(store)
    with pytest.raises(MalformedInputError) as caught:
        await events.record(AGENT, (event(first),))
    assert caught.value.code == "link.event_gap"
    await events.record(AGENT, (event(1),))

    check = LogCheck()
    for entry in await log(store):
        check.feed(encode_entry(entry))


async def test_an_agent_tells_of_tokens_alone(store: SqliteStore) -> None:
    entry = encode_entry(Admin(ts=1, action="bundle", bundle="00"))
    with pytest.raises(DeniedError) as caught:
        await AgentEvents(store).record(AGENT, (AgentEvent(seq=1, entry=entry),))

    assert caught.value.code == "link.event"


async def test_who_tells_much_has_to_wait(store: SqliteStore) -> None:
    events = AgentEvents(store, minute_seconds=0.2)
    await events.record(AGENT, tuple(event(seq) for seq in range(1, 121)))
    begun_s = asyncio.get_running_loop().time()
    await events.record(AGENT, tuple(event(seq) for seq in range(121, 361)))

    assert asyncio.get_running_loop().time() - begun_s > 0.19


async def test_to_dial_in_anew_does_not_end_the_wait(store: SqliteStore) -> None:
    events = AgentEvents(store, minute_seconds=60.0)
    await events.record(AGENT, tuple(event(seq) for seq in range(1, 121)))
    for first in range(121, 721, 60):
        with pytest.raises(TimeoutError):  # the agent hangs up
            await asyncio.wait_for(events.record(AGENT, tuple(event(first + n) for n in range(60))), 0.05)

    assert await numbers(store) == list(range(1, 121)), "what it told without waiting is not on record"


async def test_who_waited_in_vain_is_not_made_to_wait_for_that_as_well(store: SqliteStore) -> None:
    events = AgentEvents(store, minute_seconds=1.0)
    await events.record(AGENT, tuple(event(seq) for seq in range(1, 121)))
    more = tuple(event(seq) for seq in range(121, 181))
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(events.record(AGENT, more), 0.01)

    begun_s = asyncio.get_running_loop().time()
    assert await events.record(AGENT, more) == 180
    assert asyncio.get_running_loop().time() - begun_s < 0.9


async def test_events_wait_for_a_link_and_go_out_in_turn(journal: SqliteJournal) -> None:
    outbox = Outbox(journal=journal, clock=lambda: 5, request_key=KEY)
    sent: list[list[int]] = []

    async def send(message: Events) -> None:
        sent.append([one.seq for one in message.events])

    for _ in range(3):
        await outbox.tell(attached)
    assert sent == []
    await outbox.linked(LINK, 0, send)
    await outbox.tell(attached)
    assert sent == [[1, 2, 3]], "one message under way at a time"
    await outbox.recorded(LINK, 3)
    await outbox.recorded(LINK, 4)
    outbox.unlinked(LINK)
    await outbox.tell(attached)
    await outbox.linked(LINK, 4, send)

    assert sent == [[1, 2, 3], [4], [5]]


async def test_events_go_over_one_link_at_a_time_and_over_another_when_that_goes(journal: SqliteJournal) -> None:
    outbox = Outbox(journal=journal, clock=lambda: 5, request_key=KEY)
    sent: list[tuple[str, list[int]]] = []

    def over(name: str) -> Callable[[Events], Awaitable[None]]:
        async def send(message: Events) -> None:
            sent.append((name, [one.seq for one in message.events]))

        return send

    await outbox.tell(attached)
    await outbox.linked("one", 0, over("one"))
    await outbox.linked("two", 0, over("two"))
    await outbox.tell(attached)
    assert sent == [("one", [1])], "the other link's welcome confirms nothing of what is under way"
    await outbox.recorded("one", 1)
    outbox.unlinked("one")
    await outbox.flush()
    await outbox.recorded("two", 2)
    await outbox.linked("one", 2, over("one"))
    await outbox.tell(attached)

    assert sent == [("one", [1]), ("one", [2]), ("two", [2]), ("two", [3])]


@pytest.mark.parametrize("through", [-1, 2**53 - 1, 2**63 - 1, 2**64])
async def test_no_hub_can_use_up_the_numbers(journal: SqliteJournal, through: int) -> None:
    outbox = Outbox(journal=journal, clock=lambda: 5, request_key=KEY)
    await outbox.tell(attached)

    async def send(_message: Events) -> None:
        pass

    for lie in (outbox.recorded(LINK, through), outbox.linked(LINK, through, send)):
        with pytest.raises(MalformedInputError) as caught:
            await lie
        assert caught.value.code == "link.malformed"
    await outbox.tell(attached)

    assert [one.seq for one in await journal.events(10)] == [1, 2]


async def test_a_lost_answer_is_made_up_for_by_the_next_link(journal: SqliteJournal) -> None:
    outbox = Outbox(journal=journal, clock=lambda: 5, request_key=KEY)
    sent: list[list[int]] = []

    async def send(message: Events) -> None:
        sent.append([one.seq for one in message.events])

    await outbox.tell(attached)
    await outbox.linked(LINK, 0, send)
    outbox.unlinked(LINK)
    await outbox.tell(attached)
    await outbox.linked(LINK, 1, send)

    assert sent == [[1], [2]]


async def test_what_several_tokens_tell_at_once_is_on_its_way_once(journal: SqliteJournal) -> None:
    outbox = Outbox(journal=journal, clock=lambda: 5, request_key=KEY)

    def of(token: int) -> EntryMaker:
        return lambda at, agent: TokenEvent(ts=at, agent=agent, seq=0, at=at, token=str(token), event="attached")

    await asyncio.gather(*(outbox.tell(of(token)) for token in range(20)))

    told = [parse_entry(one.entry) for one in await journal.events(100)]
    assert [entry.token for entry in told if isinstance(entry, TokenEvent)] == [str(token) for token in range(20)]


async def test_a_journal_that_could_not_be_read_once_holds_nothing_back() -> None:
    faults = Faults()
    journal = await SqliteJournal.open(":memory:", origin="hub.example", connect=faults.connect)
    outbox = Outbox(journal=journal, clock=lambda: 5, request_key=KEY)
    sent: list[list[int]] = []

    async def send(message: Events) -> None:
        sent.append([one.seq for one in message.events])

    await outbox.linked(LINK, 0, send)
    faults.fail_at = "SELECT seq, entry"
    await outbox.tell(attached)
    faults.fail_at = ""
    await outbox.tell(attached)

    assert sent == [[1, 2]]
    await journal.close()


class Slow:
    """A database that takes its time to read events, once."""

    def __init__(self) -> None:
        self.reading = threading.Event()
        self.go_on = threading.Event()

    def connect(self, path: str) -> sqlite3.Connection:
        slow = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                if sql.startswith("SELECT seq, entry"):
                    slow.reading.set()
                    slow.go_on.wait(10)
                return super().execute(sql, parameters)

        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)


async def test_a_link_that_comes_meanwhile_is_told_once() -> None:
    slow = Slow()
    journal = await SqliteJournal.open(":memory:", origin="hub.example", connect=slow.connect)
    outbox = Outbox(journal=journal, clock=lambda: 5, request_key=KEY)
    sent: list[tuple[str, list[int]]] = []

    def sender(link: str) -> Callable[[Events], Awaitable[None]]:
        async def send(message: Events) -> None:
            sent.append((link, [one.seq for one in message.events]))

        return send

    await outbox.tell(attached)
    first = asyncio.create_task(outbox.linked(LINK, 0, sender("first")))
    await asyncio.to_thread(slow.reading.wait)
    outbox.unlinked(LINK)
    second = asyncio.create_task(outbox.linked(LINK, 0, sender("second")))
    await asyncio.sleep(0)
    slow.go_on.set()
    await asyncio.gather(first, second)

    assert sent == [("second", [1])]
    await journal.close()
