# SPDX-License-Identifier: Apache-2.0
"""A log whose newest entries are lost is given up by authority keys alone, and everybody goes on under the new one."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api_client import Asked
from postgres_server import PostgresServer
from privyseal.client.receipts import check_receipt
from privyseal.errors import ConfigError, LogIntegrityError, VerificationError
from privyseal.hub import idle_database, reopening
from privyseal.hub.reopening import reopen_log
from privyseal.identity.keyfile import load_ed25519
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.entry import Admin, Enrol, KeyEntry, Result
from privyseal.tlog.receipt import parse_receipt
from programs import privyseal, succeeded
from witnessed import WitnessedSite, running_site


@dataclass(kw_only=True)
class Lost:
    """A site whose database and head.checkpoint are of yesterday; an agent has seen more.

    Attributes:
        kept, lost: A request that the old database knows, and one that it does not, with their items.
        known: The newest checkpoint, as the agent holds it.
    """

    site: WitnessedSite
    kept: tuple[Asked, dict[str, Any]]
    lost: tuple[Asked, dict[str, Any]]
    known: str
    authority: Ed25519PrivateKey

    @property
    def hub(self) -> Path:
        return self.site.directory / "hub"

    async def start(self) -> None:
        await start(self.site)


async def start(site: WitnessedSite) -> None:
    await site.start_hub()
    for name in ("signer", "other"):
        await site.start_agent(name)
    await site.online()


async def sign(site: WitnessedSite) -> tuple[Asked, dict[str, Any]]:
    asked = await site.ask()
    (item,) = (await site.send(asked)).document["items"]
    assert item["state"] == "signed", item
    return asked, item


async def stop(site: WitnessedSite) -> None:
    for name in tuple(site.agents):
        await site.agents.pop(name).stop()
    await site.hub.stop()


@pytest.fixture
async def lost(tmp_path: Path) -> AsyncIterator[Lost]:
    async with running_site(tmp_path, level="off") as site:
        kept = await sign(site)
        await stop(site)
        shutil.copytree(tmp_path / "hub", tmp_path / "backup")
        await site.start_hub()
        await site.start_agent("signer")
        await site.online()
        gone = await sign(site)
        await stop(site)
        shutil.rmtree(tmp_path / "hub")
        shutil.copytree(tmp_path / "backup", tmp_path / "hub")
        journal = await SqliteJournal.open(tmp_path / "signer" / "journal.db", origin=site.config.name)
        known = (await journal.state()).checkpoint_note
        await journal.close()
        assert known is not None
        authority = load_ed25519(tmp_path / "authority.key")
        yield Lost(site=site, kept=kept, lost=gone, known=known, authority=authority)


async def test_everybody_goes_on_under_the_new_log(lost: Lost) -> None:
    done = reopen_log(lost.hub, (lost.authority,), known=(lost.known,))
    await lost.start()

    await sign(lost.site)
    entries = await lost.site.entries()
    genesis = entries[0]
    assert isinstance(genesis, Admin)
    assert lost.known in genesis.former
    assert len(genesis.former) == len(done.sizes) == 2
    assert [type(one) for one in entries[1:5]] == [Enrol, Enrol, Enrol, KeyEntry]
    assert isinstance(entries[-1], Result)
    bundle = lost.site.client.load_bundle()
    assert bundle.origin == lost.site.hub.hub.bundle.origin != lost.site.config.name
    for agent in lost.site.agents.values():
        assert agent.links.trust.bundle.origin == bundle.origin


@pytest.mark.interop
async def test_over_postgresql_too(tmp_path: Path, postgres: PostgresServer) -> None:
    name = await postgres.make_database()
    async with running_site(tmp_path, level="off", database=postgres.url(name)) as site:
        await sign(site)
        await stop(site)
        yesterday = await postgres.make_database(template=name)
        shutil.copyfile(tmp_path / "hub" / "head.checkpoint", tmp_path / "head.yesterday")
        await site.start_hub()
        await site.start_agent("signer")
        await site.online()
        _, gone = await sign(site)
        await stop(site)
        config = tmp_path / "hub" / "hub.toml"
        config.write_text(config.read_text().replace(postgres.url(name), postgres.url(yesterday)))
        shutil.copyfile(tmp_path / "head.yesterday", tmp_path / "hub" / "head.checkpoint")

        known = parse_receipt(gone["receipt"]).checkpoint
        authority = load_ed25519(tmp_path / "authority.key")
        done = await asyncio.to_thread(reopen_log, tmp_path / "hub", (authority,), known=(known,))

        await start(site)
        await sign(site)
        assert isinstance((await site.entries())[0], Admin)
        kept = await postgres.execute("SELECT count(*) FROM closed_1_log_entry", yesterday)
        assert [tuple(row) for row in kept] == [(done.sizes[0],)]


async def test_receipts_of_the_former_log_stay_good_up_to_what_was_known(lost: Lost) -> None:
    receipt = lost.lost[1]["receipt"]
    reopen_log(lost.hub, (lost.authority,), known=(lost.known, parse_receipt(receipt).checkpoint))
    await lost.start()
    await lost.site.ask()
    bundle = lost.site.client.load_bundle()

    for _, item in (lost.kept, lost.lost):
        assert check_receipt(item["receipt"], bundle).entry.outcome == "ok"


async def test_what_goes_beyond_the_cited_checkpoints_is_refused(lost: Lost) -> None:
    reopen_log(lost.hub, (lost.authority,), damaged=True)  # nobody told of what the agent has seen
    await lost.start()
    await lost.site.ask()
    bundle = lost.site.client.load_bundle()

    assert check_receipt(lost.kept[1]["receipt"], bundle).entry.outcome == "ok"
    with pytest.raises(VerificationError) as caught:
        check_receipt(lost.lost[1]["receipt"], bundle)
    assert caught.value.code == "log.given_up"


async def test_an_old_request_is_never_signed_again(lost: Lost) -> None:
    reopen_log(lost.hub, (lost.authority,), known=(lost.known,))
    await lost.start()

    (item,) = (await lost.site.send(lost.kept[0])).document["items"]
    assert (item["state"], item["code"]) == ("failed", "log.reopened")
    # The hub has forgotten the other one with its database; the agent remembers that it was signed.
    (item,) = (await lost.site.send(lost.lost[0])).document["items"]
    assert (item["state"], item["branch"]) == ("failed", "conflict")
    assert item["code"] in {"journal.used", "journal.signed"}


async def test_without_the_authority_keys_nothing_changes(lost: Lost) -> None:
    before = {path.name: path.read_bytes() for path in lost.hub.iterdir() if path.is_file()}

    with pytest.raises(VerificationError) as caught:
        reopen_log(lost.hub, (Ed25519PrivateKey.generate(),), known=(lost.known,))
    assert caught.value.code == "bundle.quorum"
    assert {name: (lost.hub / name).read_bytes() for name in before} == before


async def test_a_hub_that_runs_is_left_alone(lost: Lost) -> None:
    await lost.site.start_hub()

    with pytest.raises(ConfigError) as caught:
        await asyncio.to_thread(reopen_log, lost.hub, (lost.authority,), known=(lost.known,))
    assert caught.value.code == "store.in_use"


async def test_a_whole_log_is_not_given_up(lost: Lost) -> None:
    with pytest.raises(LogIntegrityError) as caught:
        reopen_log(lost.hub, (lost.authority,))
    assert caught.value.code == "log.reopen_whole"


@pytest.mark.parametrize("step", ["_put_aside", "begin_another", "_put_in_place"])
async def test_an_end_at_any_step_is_made_up_for(lost: Lost, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class EndError(Exception):
        pass

    def end(*_: object, **_more: object) -> None:
        raise EndError

    with monkeypatch.context() as patched:
        patched.setattr(idle_database._Sqlite if step == "begin_another" else reopening, step, end)
        with pytest.raises(EndError):
            reopen_log(lost.hub, (lost.authority,), known=(lost.known,))
    if step == "_put_in_place":
        with pytest.raises(ConfigError) as half:
            await lost.site.start_hub()
        assert half.value.code == "log.origin"

    done = reopen_log(lost.hub, (lost.authority,), known=(lost.known,))
    assert len(done.sizes) == 2
    await lost.start()
    await sign(lost.site)


async def test_the_command_says_what_it_did(lost: Lost, tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text(lost.known)
    place = ("--dir", lost.hub, "--authority", tmp_path / "authority.key", "--known", known)

    said = succeeded(await asyncio.to_thread(privyseal, "log", "reopen", *place, "--json")).document
    assert said["former"] == lost.site.config.name
    assert len(said["sizes"]) == 2
    kept = {path.name for path in await asyncio.to_thread(lambda: list(Path(said["archive"]).iterdir()))}
    assert kept >= {"hub.db", "log.key", "bundle.json", "head.checkpoint"}
    await lost.start()
    await sign(lost.site)


async def test_the_former_bundle_does_not_begin_a_second_log_of_the_former_name(lost: Lost) -> None:
    reopen_log(lost.hub, (lost.authority,), known=(lost.known,))
    agent_bundle = lost.site.directory / "other" / "bundle.json"
    before = agent_bundle.read_bytes()
    forged = (lost.site.directory / "backup" / "bundle.json").read_bytes()
    (lost.hub / "bundle.json").write_bytes(forged)

    with pytest.raises(ConfigError) as caught:
        await lost.site.start_hub()
    assert caught.value.code == "log.origin"
    assert agent_bundle.read_bytes() == before
