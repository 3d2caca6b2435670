# SPDX-License-Identifier: Apache-2.0
"""Key profiles over several tokens: which of them may sign, which does, and which one key alone will do for."""

import asyncio
from pathlib import Path

import pytest

from pool_site import PROFILE, PoolSite, pool_table, running_pool, view_of
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.pki.x509 import parse_certificate
from privyseal.tlog.entry import KeyEntry

ONE, TWO = "one/software", "two/software"
BOTH = pool_table((ONE, TWO))
AGENTS = {"one": ("software",), "two": ("software",)}


async def refused(site: PoolSite, agent: str) -> None:
    """Start an agent that the hub does not take."""
    await site.start_agent(agent, linked=False)
    await site.until(lambda: not site.agents[agent].links.all[0].linked.is_set())
    await site.until(lambda: agent not in site.hub.hub.dispatch.links)


async def test_requests_go_to_all_tokens_of_a_pool(tmp_path: Path) -> None:
    async with running_pool(tmp_path, AGENTS, BOTH) as site:
        await site.online(ONE, TWO)
        for _ in range(6):
            await site.signed()

        assert await site.signatures() == {ONE: 3, TWO: 3}
        assert {key.key for key in await site.key_entries()} == set(site.keys.values())


async def test_a_busy_token_is_passed_over(tmp_path: Path) -> None:
    async with running_pool(tmp_path, AGENTS, BOTH) as site:
        await site.online(ONE, TWO)
        async with site.rest(ONE):
            held = [await site.queue() for _ in range(2)]
            await site.until(lambda: any(lane.is_idle for lane in site.served.lanes))  # which one is slow is known
            for _ in range(5):
                await site.signed()
        for one in held:
            await site.ended(one)

        assert await site.signatures() == {ONE: 1, TWO: 6}


async def test_one_agent_serves_a_profile_from_two_of_its_tokens(tmp_path: Path) -> None:
    first, second = "one/first", "one/second"
    async with running_pool(tmp_path, {"one": ("first", "second")}, pool_table((first, second))) as site:
        await site.online(first, second)
        view = await site.signed(items=40)

        assert len(view.chains) == 2
        for key in site.keys.values():
            await site.signed(key=key, items=3)
        made = await site.signatures()
        assert set(made) == {first, second}
        assert sum(made.values()) == 46


async def test_each_answer_names_the_certificate_of_the_key_that_signed(tmp_path: Path) -> None:
    async with running_pool(tmp_path, AGENTS, BOTH) as site:
        await site.online(ONE, TWO)
        named = set()
        for _ in range(4):
            asked = await site.ask()
            (item,) = (view := view_of(await site.send(asked))).items
            spki = parse_certificate(view.chains[item.chain][0]).spki
            digest = bytes.fromhex(asked.statement.items[0].preimage)
            verify_digest(spki, Mechanism.ECDSA_SHA256, digest, item.signature)
            named.add(item.chain)

        assert named == {0, 1}


async def test_a_token_outside_of_the_pool_is_refused(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"one": ("software",)}, BOTH) as site:
        await site.add_agent("three")
        site.write_agent("three", site.token("three"))
        await refused(site, "three")

        await site.online(ONE)
        assert set(await site.members()) == {ONE}
        assert len(await site.key_entries()) == 1


async def test_without_a_pool_one_token_serves_a_profile(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"one": ("software",)}, "") as site:
        await site.add_agent("two")
        site.write_agent("two", site.token("two", "first"), site.token("two", "second"))
        await refused(site, "two")
        await site.agents.pop("two").stop()
        await site.stop_agent("one")
        await refused(site, "two")

        assert set(site.keys) == {ONE}


async def test_a_token_that_promises_something_else_is_not_used(tmp_path: Path) -> None:
    """The first of hub.toml is what all must be like, whichever came first, and also while it is away."""
    async with running_pool(tmp_path, {}, BOTH) as site:
        await site.add_agent("one")
        await site.add_agent("two")
        site.write_agent("two", site.token("two", opaque='["digest"]'))
        await site.start_agent("two")
        await site.online(TWO)
        site.write_agent("one", site.token("one"))
        await site.start_agent("one")
        await site.online(ONE)

        for _ in range(3):
            await site.signed()
        assert await site.signatures() == {ONE: 3}
        found = await site.members()
        assert (found[ONE].online, found[ONE].problem) == (True, "")
        assert (found[TWO].online, found[TWO].code) == (False, "profile.differs")
        assert ONE in found[TWO].problem

        await site.stop_agent("one")
        await site.online()
        assert (await site.call("GET", f"/v1/profiles/{PROFILE}")).problem[1] == "profile.differs"
        await site.start_agent("one")
        await site.online(ONE)


async def test_two_tokens_of_one_agent_with_the_same_key_are_one_too_many(tmp_path: Path) -> None:
    first, second = "one/first", "one/second"
    async with running_pool(tmp_path, {}, pool_table((first, second))) as site:
        await site.add_agent("one")
        text = site.token("one", "first")
        twin = text.replace('name = "first"', 'name = "second"').replace('token = "first"', 'token = "second"')
        site.write_agent("one", text, twin)
        await site.start_agent("one")
        await site.online(first)

        assert (await site.members())[second].code == "profile.same_key"
        await site.signed(items=3)


async def test_a_token_whose_certificate_has_expired_leaves_the_work_to_the_others(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"two": ("software",)}, BOTH) as site:
        await site.add_agent("one")
        site.write_agent("one", site.token("one", days=-1))
        await site.start_agent("one")
        await site.online(TWO)

        for _ in range(3):
            await site.signed()
        assert await site.signatures() == {TWO: 3}
        assert (await site.members())[ONE].code == "certificate.expired"
        status = (await site.call("GET", "/v1/status")).document
        warned = {one["token"]: one["level"] for one in status["certificates"]}
        assert warned in ({ONE: "expired", TWO: "notice"}, {ONE: "expired", TWO: "warning"})


async def test_a_request_that_names_a_key_waits_for_that_key_alone(tmp_path: Path) -> None:
    async with running_pool(tmp_path, AGENTS, BOTH) as site:
        await site.online(ONE, TWO)
        key = site.keys[ONE]
        async with site.rest(ONE):
            sent = [await site.queue(key=key) for _ in range(6)]
            assert site.hub.hub.board.items == 4
            await site.signed()  # any key will do: it goes by
            assert await site.signatures() == {TWO: 1}
        for one in sent:
            assert [item.state for item in (await site.ended(one)).items] == ["signed"]

        assert await site.signatures() == {ONE: 6, TWO: 1}


async def test_a_request_that_names_the_key_of_a_token_without_a_link_is_told_so(tmp_path: Path) -> None:
    async with running_pool(tmp_path, AGENTS, BOTH) as site:
        await site.online(ONE, TWO)
        key = site.keys[ONE]
        await site.stop_agent("one")

        reply = await site.send(await site.ask(), key=key)
        assert reply.problem == (503, "agent.offline")
        assert "'one'" in reply.document["detail"]


@pytest.mark.parametrize("key", ["00" * 32, "no key"])
async def test_a_key_that_no_token_has_is_refused(tmp_path: Path, key: str) -> None:
    async with running_pool(tmp_path, AGENTS, BOTH) as site:
        await site.online(ONE, TWO)

        assert (await site.send(await site.ask(), key=key)).problem == (409, "certificate.changed")
        assert site.hub.hub.board.items == 0


async def test_a_key_that_goes_takes_along_who_waits_for_it(tmp_path: Path) -> None:
    """What the token has begun ends with it; what waits is refused, once the profile has another key."""
    async with running_pool(tmp_path, {"one": ("software",)}, "") as site:
        await site.online(ONE)
        key = site.keys[ONE]
        async with site.rest(ONE):
            pinned = [await site.queue(key=key) for _ in range(5)]
            free = await site.queue()
            assert site.hub.hub.board.items == 4
            stopping = asyncio.create_task(site.stop_agent("one"))
            await site.until(lambda: not site.hub.hub.dispatch.links)
        await stopping
        site.write_agent("one", site.token("one", "second"))
        await site.start_agent("one")
        await site.online("one/second")

        ends = [(item.state, item.code) for one in pinned for item in (await site.ended(one)).items]
        assert [item.state for item in (await site.ended(free)).items] == ["signed"]
        assert ends == [("signed", "")] * 2 + [("failed", "certificate.changed")] * 3
        assert site.hub.hub.board.items == 0
        assert [entry.profile for entry in await site.entries() if isinstance(entry, KeyEntry)] == [PROFILE] * 2
