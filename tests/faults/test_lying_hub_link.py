# SPDX-License-Identifier: Apache-2.0
"""A hub that lies or breaks off over the real link: the agent survives, dials in again, and signs what is honest."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from lied_to_agent import with_member, with_part
from lying_hub import Ask, raw_key, sha256
from lying_link import LinkSite, Peer, open_link_site
from privyseal.wire.jobs import ItemDone, ItemRefused, OutcomeQuery, OutcomeReply
from privyseal.wire.link import LINK_VERSION, MAX_MESSAGE_BYTES, Hello, Refused, Welcome, encode

Lie = Callable[[LinkSite, Peer], Awaitable[None]]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[LinkSite]:
    async with open_link_site(tmp_path) as site:
        yield site


@pytest.fixture
def ask(site: LinkSite) -> Ask:
    return site.hub.ask(site.hub.enrol())


async def nothing_signed(site: LinkSite) -> bool:
    """Whether the agent has begun no token operation."""
    return await site.agent.executor._journal.entries(0, 1) == ()


async def test_an_honest_job_is_signed_over_the_link(site: LinkSite, ask: Ask) -> None:
    await site.still_signs(ask)

    assert not await nothing_signed(site)


async def send_bytes(peer: Peer, data: bytes) -> None:
    """After a greeting, a frame that no hub sends."""
    await peer.socket.send_bytes(data)
    await peer.until_gone()


async def send_text(_: LinkSite, peer: Peer) -> None:
    await peer.socket.send_str("hello")
    await peer.until_gone()


async def send_after_welcome(site: LinkSite, peer: Peer) -> None:
    await site.greet(peer)
    await send_bytes(peer, b"\xc1 no MessagePack")


async def cut(_: LinkSite, peer: Peer) -> None:
    peer.cut()


async def cut_after_welcome(site: LinkSite, peer: Peer) -> None:
    await site.greet(peer)
    peer.cut()


async def close(_: LinkSite, peer: Peer) -> None:
    await peer.socket.close()


async def refuse(_: LinkSite, peer: Peer) -> None:
    await peer.send(Refused(code="agent.revoked", message="go away"))
    await peer.until_gone()


async def ask_outcome_out_of_range(site: LinkSite, peer: Peer) -> None:
    await site.greet(peer)
    await peer.send(OutcomeQuery(request="", item=-1, fence=-1))
    await peer.until_gone()


LIES: dict[str, Lie] = {
    "garbage": lambda _, peer: send_bytes(peer, b"\xff" * 1000),
    "empty": lambda _, peer: send_bytes(peer, b""),
    "deep": lambda _, peer: send_bytes(peer, b"\x91" * 100_000),
    "count": lambda _, peer: send_bytes(peer, b"\xdd\xff\xff\xff\xff"),
    "oversize": lambda _, peer: send_bytes(peer, bytes(MAX_MESSAGE_BYTES + 1)),
    "agents-message": lambda _, peer: send_bytes(
        peer,
        encode(Hello(version=LINK_VERSION, checkpoint_size=0, checkpoint_root=bytes(32), bundle=b"", witness="")),
    ),
    "text": send_text,
    "after-welcome": send_after_welcome,
    "cut": cut,
    "cut-after-welcome": cut_after_welcome,
    "close": close,
    "refused": refuse,
    "outcome-range": ask_outcome_out_of_range,
}


@pytest.mark.parametrize("lie", LIES)
async def test_the_agent_survives_and_dials_in_again(site: LinkSite, ask: Ask, lie: str) -> None:
    await site.play(lambda peer: LIES[lie](site, peer))

    assert await nothing_signed(site)
    await site.still_signs(ask)
    assert len(site.dialled_at) == 2


async def test_a_lying_job_before_the_welcome_is_refused(site: LinkSite, ask: Ask) -> None:
    async def script(peer: Peer) -> None:
        assert isinstance(await peer.receive(), Hello)
        job = site.hub.job(ask, change=lambda intent: replace(intent, digest=sha256(b"another")))
        await peer.send(job)
        said = await peer.answer()
        assert isinstance(said, ItemRefused)
        assert said.code == "job.entry"
        await peer.send(Welcome(name="agent", recorded=0))

    await site.play(script)

    assert await nothing_signed(site)
    await site.still_signs(ask)


async def test_a_request_key_that_is_no_key_does_not_end_the_agent(site: LinkSite, ask: Ask) -> None:
    async def script(peer: Peer) -> None:
        await site.greet(peer)
        job = site.hub.job(ask)
        stump = raw_key(ask.member.key)[:31]
        envelope = job.parts[0].envelope.replace(sha256(raw_key(ask.member.key)).encode(), sha256(stump).encode())
        await peer.send(with_member(with_part(job, envelope=envelope), request_key=stump))
        said = await peer.answer()
        assert isinstance(said, ItemRefused)

    await site.play(script)

    await site.still_signs(ask)


async def test_a_lie_between_honest_jobs_does_not_end_the_link(site: LinkSite) -> None:
    member = site.hub.enrol()

    async def script(peer: Peer) -> None:
        await site.greet(peer)
        for build in range(3):
            ask = site.hub.ask(member, idempotency_key=f"build {build}")
            job = site.hub.job(ask)
            await peer.send(replace(job, checkpoint=site.hub.checkpoint(origin="other.example/log")))
            said = await peer.answer()
            assert isinstance(said, ItemRefused)
            assert said.code == "checkpoint.origin"
            await peer.send(job)
            site.check_done(job, await peer.answer())

    await site.play(script)

    assert len(await site.agent.executor._journal.entries(0, 10)) == 3


async def test_an_answer_that_was_lost_with_the_link_can_be_asked_for(site: LinkSite, ask: Ask) -> None:
    question = OutcomeQuery(request=ask.request_id, item=0, fence=1)
    job = site.hub.job(ask)

    async def give_job(peer: Peer) -> None:
        site.hub.held_size = 0
        assert isinstance(await peer.receive(), Hello)
        await peer.send(job)
        await peer.receive()
        peer.cut()

    async def ask_again(peer: Peer) -> None:
        await site.greet(peer)
        await peer.send(question)
        said = await peer.receive()
        assert isinstance(said, OutcomeReply)
        assert said.state == "done"
        site.check_done(job, ItemDone(request=said.request, item=0, fence=1, signature=said.signature))

    await site.play(give_job)
    await site.play(ask_again)


async def test_the_agent_waits_longer_after_each_failure(site: LinkSite, ask: Ask) -> None:
    for _ in range(3):
        await site.play(lambda peer: cut(site, peer))
    await site.still_signs(ask)

    waited = [later - earlier for earlier, later in itertools.pairwise(site.dialled_at)]
    assert [gap >= least for gap, least in zip(waited, (0.25, 0.5, 1.0), strict=True)] == [True] * 3
