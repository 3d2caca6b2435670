# SPDX-License-Identifier: Apache-2.0
"""After a start the hub writes nothing before an agent, a witness or the operator knows its log as the newest."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from privyseal.errors import LogIntegrityError
from privyseal.tlog.entry import Admin
from running_witness import running_witness
from witnessed import WitnessedSite, running_site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[WitnessedSite]:
    async with running_site(tmp_path, level="off") as running:
        yield running


async def stop_all(site: WitnessedSite) -> int:
    """Everything stops; how large the log is."""
    for name in tuple(site.agents):
        await site.agents.pop(name).stop()
    await site.hub.stop()
    return site.hub.hub.store.head.size


def is_unready(site: WitnessedSite) -> bool:
    return site.hub.hub.refusal is not None


async def is_refused(site: WitnessedSite) -> bool:
    asked = await site.ask()
    before = site.hub.hub.store.head.size
    reply = await site.send(asked)
    assert site.hub.hub.store.head.size == before
    return reply.problem == (503, "log.unconfirmed")


async def sign(site: WitnessedSite) -> None:
    (item,) = (await site.send(await site.ask())).document["items"]
    assert item["state"] == "signed"


async def test_an_agent_that_knows_the_log_lets_it_go_on(site: WitnessedSite) -> None:
    await sign(site)
    await stop_all(site)

    await site.start_hub()
    assert is_unready(site)
    assert await is_refused(site)
    await site.start_agent("other")
    assert not is_unready(site)
    await site.start_agent("signer")
    await site.online()
    await sign(site)


async def test_an_agent_that_remembers_nothing_does_not(site: WitnessedSite) -> None:
    await stop_all(site)
    for place in (site.directory / "other").glob("journal.db*"):
        place.unlink()

    await site.start_hub()
    await site.start_agent("other")
    assert await is_refused(site)


async def test_a_backup_of_the_whole_directory_is_noticed_by_an_agent(site: WitnessedSite) -> None:
    await stop_all(site)
    backup = site.directory / "backup"
    shutil.copytree(site.directory / "hub", backup)
    await site.start_hub()
    await site.start_agent("signer")
    await site.online()
    await sign(site)
    await stop_all(site)

    # Database and head.checkpoint are both of yesterday: nothing on this machine can tell.
    shutil.rmtree(site.directory / "hub")
    shutil.copytree(backup, site.directory / "hub")
    await site.start_hub()
    assert await is_refused(site)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await site.start_agent("signer")
    assert "log.rollback" in str(site.hub.hub.refusal)


async def test_a_witness_with_a_url_is_asked_at_the_start(site: WitnessedSite) -> None:
    with running_witness(site.directory / "w", site.hub.hub.bundle.log_key) as witness:
        await site.name_policy(f"witness w {witness.vkey} {witness.url}\nquorum w\n")
        await stop_all(site)
        backup = site.directory / "backup"
        shutil.copytree(site.directory / "hub", backup)
        await site.start_hub()  # nobody but the witness
        assert not is_unready(site)
        await site.start_agent("signer")
        await site.online()
        await sign(site)
        assert await site.hub.hub.witnesses.vouch()
        await stop_all(site)

        shutil.rmtree(site.directory / "hub")
        shutil.copytree(backup, site.directory / "hub")
        with pytest.raises(LogIntegrityError) as caught:
            await site.start_hub()
        assert caught.value.code == "log.rollback"


async def test_the_operator_can_confirm_on_record(site: WitnessedSite) -> None:
    size = await stop_all(site)

    with pytest.raises(LogIntegrityError) as caught:
        await site.start_hub(confirmed_size=size + 1)
    assert caught.value.code == "log.rollback"
    await site.hub.stop()
    await site.start_hub(confirmed_size=size)
    last = (await site.entries())[-1]
    assert isinstance(last, Admin)
    assert last.action == "confirm"


async def test_a_log_that_nobody_else_could_know_needs_nobody(tmp_path: Path) -> None:
    async with running_site(tmp_path, level="off") as site:
        for name in ("signer", "other"):
            await site.stop_agent(name)
            await asyncio.to_thread(site.desk().revoke, "agent", name)
        await stop_all(site)
        await site.start_hub()
        assert not is_unready(site)
