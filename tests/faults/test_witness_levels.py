# SPDX-License-Identifier: Apache-2.0
"""Witness levels of a key profile: what waits for the quorum, and that nothing slips past it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from privyseal.client.receipts import check_receipt
from privyseal.errors import ConfigError, PrivysealError
from privyseal.hub.services import witnesses
from privyseal.tlog.entry import Intent, Result
from privyseal.tlog.note import parse_note
from privyseal.tlog.quorum import cosigned_by
from privyseal.tlog.receipt import parse_receipt
from witnessed import WitnessedSite, running_site


@pytest.fixture(params=["before-use", "before-release"])
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[WitnessedSite]:
    async with running_site(tmp_path, level=request.param) as running:
        yield running


@pytest.fixture
async def careful(tmp_path: Path) -> AsyncIterator[WitnessedSite]:
    async with running_site(tmp_path, level="before-use") as running:
        yield running


def cosigners(site: WitnessedSite, receipt: str) -> set[str]:
    note = parse_note(parse_receipt(receipt).checkpoint)
    return {name for name, _ in cosigned_by(note, site.hub.hub.bundle.witnesses)}


async def outcomes(site: WitnessedSite) -> list[str]:
    """What the log says of token operations."""
    return [one.outcome for one in await site.entries() if isinstance(one, Result)]


async def test_the_quorum_stands_on_the_receipt(site: WitnessedSite) -> None:
    await site.rely_on("other")

    asked = await site.ask()
    reply = await site.send(asked)

    (item,) = reply.document["items"]
    assert item["state"] == "signed", reply
    assert cosigners(site, item["receipt"]) == {"other"}
    assert (await site.send(asked)).document["items"] == [item], "asking again gives the same"
    assert await outcomes(site) == ["ok"]


async def test_without_the_quorum_the_token_is_not_used(
    careful: WitnessedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnesses, "_QUORUM_SECONDS", 0.2)
    await careful.rely_on("other")
    await careful.stop_agent("other")

    (item,) = (await careful.send(await careful.ask())).document["items"]

    assert (item["state"], item["branch"], item["code"]) == ("failed", "unavailable", "witness.quorum")
    assert await outcomes(careful) == ["not-used"]
    await careful.start_agent("other")
    (again,) = (await careful.send(await careful.ask())).document["items"]
    assert again["state"] == "signed"


async def test_the_agent_that_uses_the_token_does_not_count(
    careful: WitnessedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnesses, "_QUORUM_SECONDS", 0.2)
    await careful.rely_on("signer", "other", quorum="any")
    await careful.stop_agent("other")

    (item,) = (await careful.send(await careful.ask())).document["items"]

    assert item["code"] == "witness.quorum"
    assert await outcomes(careful) == ["not-used"]
    assert {one.witness.name: one.size > 0 for one in careful.hub.hub.witnesses.status()} == {
        "signer": True,
        "other": False,
    }, "it did cosign"


async def test_a_signature_waits_for_its_witnesses_also_over_a_restart(tmp_path: Path) -> None:
    async with running_site(tmp_path, level="before-release") as site:
        await site.rely_on("other")
        await site.stop_agent("other")
        asked = await site.ask()
        waiting = (await site.send(asked, wait_seconds=0.2)).document
        await site.until(lambda: site.hub.hub.dispatch.profile("demo") is not None)

        # The token has signed, that is on record, and the hub gives nothing away.
        while "ok" not in await outcomes(site):
            waiting = (await site.send(asked, wait_seconds=0.2)).document
        assert (waiting["state"], waiting["items"]) == ("waiting", [])

        await site.agents.pop("signer").stop()
        await site.hub.stop()
        await site.start_hub()
        await site.start_agent("signer")  # it knows the log, and is no witness that counts
        assert (await site.send(asked, wait_seconds=0.2)).document["items"] == []
        await site.start_agent("other")
        (item,) = (await site.send(asked)).document["items"]
        assert item["state"] == "signed"
        assert cosigners(site, item["receipt"]) == {"other"}


async def test_async_waits_for_nobody(tmp_path: Path) -> None:
    async with running_site(tmp_path, level="async") as site:
        await site.rely_on("other")
        await site.stop_agent("other")
        (item,) = (await site.send(await site.ask())).document["items"]
        assert item["state"] == "signed"

        await site.start_agent("other")
        (item,) = (await site.send(await site.ask())).document["items"]
        assert item["state"] == "signed"
        head = site.hub.hub.store.head.size
        await site.until(lambda: site.hub.hub.witnesses.status()[0].size == head)


async def test_without_named_witnesses_nothing_is_accepted(site: WitnessedSite) -> None:
    reply = await site.send(await site.ask())

    assert reply.problem == (503, "witness.none")
    assert not any(isinstance(one, Intent) for one in await site.entries())


async def test_a_witness_on_the_hub_s_host_is_refused_and_does_not_count(
    careful: WitnessedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnesses, "_QUORUM_SECONDS", 0.2)
    await careful.rely_on("other")
    await careful.stop_agent("other")
    careful.hub.hub.is_here = lambda _: True  # from now on every address is the hub's own
    await careful.start_agent("other")

    (item,) = (await careful.send(await careful.ask())).document["items"]
    assert item["code"] == "witness.quorum"
    assert "own host" in item["message"]
    with pytest.raises(ConfigError) as refused:
        await careful.hub.hub.witnesses.refuse_here(careful.hub.hub.bundle.witnesses)
    assert refused.value.code == "witness.here"


async def test_a_bundle_is_followed_only_if_its_authorities_say_so(careful: WitnessedSite) -> None:
    before = careful.hub.hub.bundle
    await careful.rely_on("other")
    asked = await careful.ask()  # the client follows when it asks for the key profile

    after = careful.hub.hub.bundle
    assert (before.statement.serial, after.statement.serial) == (1, 2)
    assert careful.client.load_bundle().sha256 == after.sha256
    for agent in careful.agents.values():
        assert agent.links.trust.bundle.sha256 == after.sha256
    (item,) = (await careful.send(asked)).document["items"]
    check_receipt(item["receipt"], after)

    with pytest.raises(PrivysealError) as stale:
        await careful.hub.hub.change_trust(before.envelope)
    assert stale.value.code == "bundle.successor"


async def test_two_agents_that_witness_each_other_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with running_site(tmp_path, level="before-use") as site:
        await site.rely_on("signer", "other", quorum="any")
        replies = await asyncio.gather(*[site.send(await site.ask()) for _ in range(8)])

        assert [item["state"] for reply in replies for item in reply.document["items"]] == ["signed"] * 8
        assert await outcomes(site) == ["ok"] * 8
