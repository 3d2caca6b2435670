# SPDX-License-Identifier: Apache-2.0
"""One agent over real links to two hubs of one log: both hear how it is, each of its own jobs, events go to one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from lying_hub import TOKEN, Ask
from lying_link import PATIENCE_SECONDS, LinkSite, Peer, open_link_sites
from privyseal.identity.bundle import seal_bundle
from privyseal.wire.jobs import Answers, ItemRefused, OutcomeQuery, OutcomeReply, Recall
from privyseal.wire.link import (
    AddCheckpoint,
    Announce,
    CheckpointAnswer,
    Events,
    EventsRecorded,
    Held,
    Hello,
    TokenReport,
    TrustChanged,
    UnlockAnswer,
    UnlockQuery,
    Welcome,
)

Sites = list[LinkSite]


@pytest.fixture
async def sites(tmp_path: Path) -> AsyncIterator[Sites]:
    async with open_link_sites(tmp_path, 2) as sites:
        yield sites


def asks_of(site: LinkSite, count: int) -> list[Ask]:
    member = site.hub.enrol()
    return [site.hub.ask(member, idempotency_key=str(number)) for number in range(count)]


async def both(one: "asyncio._CoroutineLike[None]", other: "asyncio._CoroutineLike[None]") -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        group.create_task(one)
        group.create_task(other)


class Meeting:
    """Both hubs' ends, once both have greeted the agent; scripts end together."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._peers: list[asyncio.Future[Peer]] = [asyncio.get_running_loop().create_future() for _ in sites]
        self._over = asyncio.Event()
        self._playing: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> list[Peer]:
        for site, peer in zip(self._sites, self._peers, strict=True):

            async def script(end: Peer, site: LinkSite = site, met: "asyncio.Future[Peer]" = peer) -> None:
                await site.greet(end)
                met.set_result(end)
                await self._over.wait()

            self._playing.append(asyncio.create_task(site.play(script)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            return [await peer for peer in self._peers]

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._playing)


async def test_two_links_that_send_jobs_alternately(sites: Sites) -> None:
    """Each hub hears what the other one has shown, and goes on from there."""
    async with Meeting(sites) as peers:
        for number, ask in enumerate(asks_of(sites[0], 6)):
            here, there = number % 2, 1 - number % 2
            job = sites[here].hub.job(ask, fence=number + 1)  # each takes the lease over
            await peers[here].send(job)
            sites[here].check_done(job, (await peers[here].hear(Answers)).items[0])
            sites[there].hub.held_size = (await peers[there].hear(Held)).size
            assert sites[there].hub.held_size == sites[0].hub.log.size

    assert len(await sites[0].agent.executor._journal.entries(0, 10)) == 6


async def test_a_job_that_crosses_is_handed_back_over_its_own_link(sites: Sites) -> None:
    async with Meeting(sites) as (one, other):
        first, second = asks_of(sites[0], 2)
        early, job = sites[0].hub.job(first), sites[1].hub.job(second)
        await other.send(job)
        sites[1].check_done(job, (await other.hear(Answers)).items[0])
        await one.send(early)
        (said,) = (await one.hear(Answers)).items
        assert isinstance(said, ItemRefused)
        assert (said.code, said.branch) == ("job.checkpoint_behind", "unavailable")
        sites[0].hub.held_size = sites[0].agent.executor.held.size
        again = sites[0].hub.job(first, fence=2)
        await one.send(again)
        sites[0].check_done(again, (await one.hear(Answers)).items[0])


async def test_what_a_hub_has_shown_itself_is_not_told_to_it(sites: Sites) -> None:
    async with Meeting(sites) as (one, other):
        first, second = asks_of(sites[0], 2)
        job = sites[0].hub.job(first)
        await one.send(job)
        await other.hear(Held)
        await one.send(OutcomeQuery(request=second.request_id, item=0, fence=1))
        kinds = {type(await one.receive()), type(await one.receive())}
        assert kinds == {Answers, OutcomeReply}


async def test_a_checkpoint_to_cosign_is_told_to_the_other_hub(sites: Sites) -> None:
    async with Meeting(sites) as (one, other):
        sites[0].hub.enrol()
        await one.send(AddCheckpoint(body=sites[0].hub.add_checkpoint(0)))
        assert (await other.hear(Held)).size == sites[0].hub.log.size


async def test_a_checkpoint_that_crosses_is_not_cosigned_and_its_hub_is_told_what_is_held(sites: Sites) -> None:
    async with Meeting(sites) as (one, other):
        (ask,) = asks_of(sites[0], 1)
        early = sites[0].hub.add_checkpoint(0)
        await other.send(sites[1].hub.job(ask))
        await other.hear(Answers)
        size = (await one.hear(Held)).size
        await one.send(AddCheckpoint(body=early))
        assert (await one.hear(Held)).size == size, "once more, in case that it did not hear"
        assert (await one.hear(CheckpointAnswer)).status == 409


async def test_any_hub_may_ask_what_became_of_an_item(sites: Sites) -> None:
    async with Meeting(sites) as (one, other):
        (ask,) = asks_of(sites[0], 1)
        await one.send(sites[0].hub.job(ask))
        await one.hear(Answers)
        await other.send(OutcomeQuery(request=ask.request_id, item=0, fence=1))
        assert (await other.hear(OutcomeReply)).state == "done"


async def test_a_recall_over_one_link_is_answered_over_the_job_s(sites: Sites) -> None:
    async with Meeting(sites) as (one, other):
        (ask,) = asks_of(sites[0], 1)
        (served,) = sites[0].agent.executor._keys.values()
        async with served.turns.rest():
            await one.send(sites[0].hub.job(ask))
            await other.hear(Held)
            await other.send(Recall(token=TOKEN))
            (said,) = (await one.hear(Answers)).items
            assert isinstance(said, ItemRefused)
            assert said.code == "job.not_used"


async def test_announcements_and_reports_go_over_both(sites: Sites) -> None:
    async with Meeting(sites) as peers:
        agent = sites[0].agent
        for peer in peers:
            await peer.hear(TokenReport)
        await agent.links.announce(())
        await agent.links.report(())
        for peer in peers:
            assert (await peer.hear(Announce)).profiles == ()
            assert (await peer.hear(TokenReport)).tokens == ()


async def test_either_hub_may_pass_on_who_hands_in_a_pin(sites: Sites) -> None:
    async with Meeting(sites) as peers:
        for ask, peer in enumerate(peers):
            await peer.send(UnlockQuery(ask=ask, token=TOKEN))
            answer = await peer.hear(UnlockAnswer)
            assert (answer.ask, answer.code, len(answer.nonce)) == (ask, "", 32)


async def test_events_go_over_one_link_and_over_another_when_that_goes(sites: Sites) -> None:
    """Nothing is lost, and what is on record is not told again."""
    told: list[tuple[int, list[int]]] = []

    def script_of(place: int) -> "asyncio._CoroutineLike[None]":
        async def script(peer: Peer) -> None:
            await sites[place].greet(peer)
            message = await peer.hear(Events)
            told.append((place, [event.seq for event in message.events]))
            if len(told) == 1:
                peer.cut()  # it has heard, and may or may not have it on record
                return
            await peer.send(EventsRecorded(through=message.events[-1].seq))

        return sites[place].play(script)

    await both(script_of(0), script_of(1))

    (one, first), (other, second) = told
    assert {one, other} == {0, 1}
    assert second[: len(first)] == first == list(range(1, len(first) + 1))


async def test_another_trust_bundle_has_all_links_dialled_anew(sites: Sites) -> None:
    trust = sites[0].hub.trust
    statement = replace(trust.bundle.statement, serial=2)
    after = seal_bundle(statement, trust.authority)
    async with Meeting(sites) as (one, other):
        await one.send(TrustChanged(bundle=after.envelope))
        await other.until_gone()
        await one.until_gone()

    async def greeted_with_it(peer: Peer) -> None:
        hello = await peer.receive()
        assert isinstance(hello, Hello)
        assert hello.bundle == after.sha256
        await peer.send(TrustChanged(bundle=after.envelope))  # a hub that heard of it late: it is taken already
        await peer.until_gone()

    with capture_logs() as logs:
        await both(*(site.play(greeted_with_it) for site in sites))
    await both(*(site.play(site.greet) for site in sites))
    assert [len(site.dialled_at) for site in sites] == [3, 3]
    assert [log for log in logs if log["event"] == "no link to the hub"] == [], "nothing went wrong"


async def test_a_hub_that_is_welcomed_late_hears_what_was_shown_meanwhile(sites: Sites) -> None:
    (ask,) = asks_of(sites[0], 1)
    hello_came, signed = asyncio.Event(), asyncio.Event()

    async def late(peer: Peer) -> None:
        hello = await peer.receive()
        assert isinstance(hello, Hello)
        hello_came.set()
        await signed.wait()
        await peer.send(Welcome(name="agent", recorded=0))
        assert isinstance(await peer.receive(), Announce), "nothing comes before"
        assert (await peer.hear(Held)).size > hello.checkpoint_size

    async def in_time(peer: Peer) -> None:
        await sites[0].greet(peer)
        await hello_came.wait()
        await peer.send(sites[0].hub.job(ask))
        await peer.hear(Answers)
        signed.set()

    await both(sites[0].play(in_time), sites[1].play(late))
