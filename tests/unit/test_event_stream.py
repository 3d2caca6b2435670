# SPDX-License-Identifier: Apache-2.0
"""Events reach whoever listens, resume where they stopped, and nobody who listens holds anything up."""

import asyncio

import pytest

from privyseal.errors import UnavailableError
from privyseal.hub.services.event_stream import EventStream, Subscription
from privyseal.wire.events import AgentLinkEvent, JobEvent, decode_event


def link(number: int) -> AgentLinkEvent:
    return AgentLinkEvent(at=number, agent=f"agent-{number}", linked=True)


def job(number: int) -> JobEvent:
    return JobEvent(at=number, request="ab", profile="demo", items=str(number), state="signed")


async def told(stream: EventStream, subscription: Subscription) -> list[int] | None:
    """Times of the events that are there now; None if the listener is let go."""
    async with asyncio.timeout(1):
        found = await stream.next(subscription)
    return None if found is None else [decode_event(sent.data).at for sent in found]


async def ids(stream: EventStream, subscription: Subscription) -> list[str]:
    return [sent.id for sent in await stream.next(subscription) or ()]


async def test_events_come_in_order_to_everybody_and_jobs_to_their_own_client() -> None:
    stream = EventStream()
    stream.publish(link(0))
    mine, other = stream.subscribe("mine"), stream.subscribe("other")
    stream.publish(link(1))
    stream.publish(job(2), "mine")
    stream.publish(link(3))

    assert await told(stream, mine) == [1, 2, 3]
    assert await told(stream, other) == [1, 3]
    assert not mine.news.is_set()


async def test_a_listener_resumes_where_it_stopped() -> None:
    stream = EventStream()
    first = stream.subscribe("mine")
    for number in range(3):
        stream.publish(link(number))
        stream.publish(job(10 + number), "mine")
    _, last, *_ = await ids(stream, first)
    stream.unsubscribe(first)

    again = stream.subscribe("mine", last)
    assert not again.missed
    assert await told(stream, again) == [1, 11, 2, 12]


@pytest.mark.parametrize("last_id", ["", "nonsense", "-", "00000000-5", "x" * 5000, "-99999999999999999999", "é-1"])
async def test_an_id_of_another_process_is_a_gap_and_none_is_not(last_id: str) -> None:
    stream = EventStream()
    stream.publish(link(1))
    subscription = stream.subscribe("mine", last_id)
    stream.publish(link(2))

    assert subscription.missed == bool(last_id)
    assert await told(stream, subscription) == [2]


async def test_what_is_gone_when_a_listener_comes_back_is_a_gap_and_the_rest_follows() -> None:
    stream = EventStream(ring_events=4)
    first = stream.subscribe("mine")
    stream.publish(link(0))
    (last,) = await ids(stream, first)
    stream.unsubscribe(first)
    for number in range(1, 7):
        stream.publish(link(number))

    again = stream.subscribe("mine", last)
    assert again.missed
    assert await told(stream, again) == [3, 4, 5, 6]
    stream.publish(link(7))
    assert await told(stream, again) == [7]


async def test_a_listener_that_falls_behind_is_let_go() -> None:
    stream = EventStream(ring_events=4)
    slow = stream.subscribe("mine")
    for number in range(5):
        stream.publish(link(number))

    assert await told(stream, slow) is None
    stream.unsubscribe(slow, dropped=True)
    assert (stream.subscribers, stream.dropped) == (0, 1)


async def test_many_jobs_of_one_client_push_out_nothing_of_others() -> None:
    stream = EventStream(ring_events=4, client_ring_events=4)
    quiet = stream.subscribe("quiet")
    stream.publish(link(1))
    stream.publish(job(2), "quiet")
    for client in range(200):
        for number in range(100):
            stream.publish(job(number), f"busy-{client}")

    assert await told(stream, quiet) == [1, 2]
    assert len(stream._own) <= 65
    assert sum(len(ring.events) for ring in stream._own.values()) <= 65 * 4


async def test_own_events_that_were_forgotten_are_a_gap() -> None:
    stream = EventStream(client_ring_events=4)
    first = stream.subscribe("mine")
    stream.publish(job(1), "mine")
    (last,) = await ids(stream, first)
    stream.unsubscribe(first)
    for client in range(100):
        stream.publish(job(2), f"busy-{client}")

    assert stream.subscribe("mine", last).missed


async def test_a_client_opens_only_so_many_streams() -> None:
    stream = EventStream()
    opened = [stream.subscribe("mine") for _ in range(4)]
    with pytest.raises(UnavailableError, match="event streams"):
        stream.subscribe("mine")
    stream.subscribe("other")
    stream.unsubscribe(opened[0])
    stream.subscribe("mine")

    for client in range(251):
        stream.subscribe(f"client-{client}")
    with pytest.raises(UnavailableError, match="together 256"):
        stream.subscribe("one more")


async def test_the_stream_of_a_client_without_standing_ends() -> None:
    stream = EventStream()
    mine, other = stream.subscribe("mine"), stream.subscribe("other")
    stream.end("mine")
    stream.publish(link(1))

    assert await told(stream, mine) is None
    assert await told(stream, other) == [1]
