# SPDX-License-Identifier: Apache-2.0
"""A planned rollover: from a moment on new requests are for the successors; what was accepted before is not."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from pe_samples import make_pe
from pool_site import PROFILE, PoolSite, pool_table, running_pool
from privyseal.client.hub import HubClient
from privyseal.client.journal import RequestJournal
from privyseal.client.placing import Placer, SignedFile
from privyseal.client.preparing import Work, scan_file
from privyseal.client.requests import Requester
from privyseal.client.time_limit import TimeLimit
from privyseal.errors import ConfigError
from privyseal.formats.model import SignOptions
from privyseal.hub.config import load_hub_config
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import system_clock
from privyseal.wire.api import ProfileView

OLD, NEW = "one/software", "two/software"
AGENTS = {"one": ("software",), "two": ("software",)}
#: Clients' clocks may differ from the hub's by two minutes.
MINUTE_MS = 60_000


def table(since_ms: int) -> str:
    return pool_table((OLD,), successors=(NEW,), since_ms=since_ms)


async def profile(site: PoolSite) -> ProfileView:
    return msgspec.json.decode((await site.call("GET", f"/v1/profiles/{PROFILE}")).body, type=ProfileView)


def asked(site: PoolSite) -> dict[str, bool]:
    return {row.place: lane.serves(row, site.served.line) for row, lane in site.served.members}


async def test_from_the_moment_on_the_successor_signs(tmp_path: Path) -> None:
    async with running_pool(tmp_path, AGENTS, table(system_clock() + MINUTE_MS)) as site:
        await site.online(OLD)
        before = await profile(site)
        for _ in range(3):
            await site.signed()
        assert asked(site) == {OLD: True, NEW: False}
        assert await site.signatures() == {OLD: 3}

        site.ahead_ms = MINUTE_MS
        await site.online(NEW)
        for _ in range(3):
            await site.signed()
        after = await profile(site)

        assert asked(site) == {OLD: False, NEW: True}
        assert await site.signatures() == {OLD: 3, NEW: 3}
        assert before.chain != after.chain
        assert before.others == after.others == ()


async def test_what_was_accepted_before_is_signed_by_those_who_were_asked(tmp_path: Path) -> None:
    """Also if they take part in nothing else any more, and after a restart of the hub."""
    async with running_pool(tmp_path, AGENTS, table(system_clock() + MINUTE_MS)) as site:
        await site.online(OLD)
        async with site.rest(OLD):
            early = [await site.queue(items=3) for _ in range(6)]
            site.ahead_ms = MINUTE_MS
            await site.signed()
            assert await site.signatures() == {NEW: 1}
            assert site.hub.hub.board.items > 0
        for request in early:
            view = await site.ended(request)
            assert [item.state for item in view.items] == ["signed"] * 3

        assert await site.signatures() == {OLD: 18, NEW: 1}


async def test_who_fetched_the_certificate_before_gets_a_good_signature_after(tmp_path: Path) -> None:
    """What Authenticode signs does not name the certificate: any key of the profile will do."""
    async with running_pool(tmp_path, AGENTS, table(system_clock() + MINUTE_MS)) as site:
        await site.online(OLD)
        file = tmp_path / "app.exe"
        file.write_bytes(make_pe(overlay=b"rollover"))
        old, signed = await asyncio.to_thread(prepared_and_signed, site, file)
        new = await profile(site)

        assert await site.signatures() == {NEW: 1}
        assert signed.spki_sha256 == site.keys[NEW]
        assert old not in file.read_bytes()
        assert new.chain[0] in file.read_bytes()


def prepared_and_signed(site: PoolSite, file: Path) -> tuple[bytes, SignedFile]:
    """What a client does, with the moment between its question for the certificate (the answer) and its request."""
    client, hub, options = site.client, HubClient(site.client), SignOptions()
    found = hub.profile(PROFILE)
    prepared = scan_file(Work(path=file, target=file), options, whole=True).prepare(found.chain, options)
    site.ahead_ms = MINUTE_MS
    requester = Requester(
        hub=hub,
        hub_name=hub.bundle.hub,
        profile=PROFILE,
        key=load_ed25519(client.identity.request_key),
        journal=RequestJournal(client.identity.journal),
        clock=system_clock,
    )
    (answered,) = requester.ask((prepared,), TimeLimit(seconds=20).begin())
    placer = Placer(bundle=hub.bundle, options=options, timestamper=None, test=False, clock=system_clock)
    return found.chain[0], placer.place(answered)


@pytest.mark.parametrize(("place", "ahead_ms"), [(NEW, 0), (OLD, MINUTE_MS)])
async def test_a_key_before_or_after_its_time_is_refused(tmp_path: Path, place: str, ahead_ms: int) -> None:
    async with running_pool(tmp_path, AGENTS, table(system_clock() + MINUTE_MS)) as site:
        await site.online(OLD)
        site.ahead_ms = ahead_ms

        assert (await site.send(await site.ask(), key=site.keys[place])).problem == (409, "certificate.changed")


async def test_a_successor_without_a_link_is_missed_from_its_moment_on(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"one": ("software",)}, table(system_clock() + MINUTE_MS)) as site:
        await site.online(OLD)
        await site.signed()
        asked_early = await site.ask()
        site.ahead_ms = MINUTE_MS

        assert (await site.send(asked_early)).problem == (503, "agent.offline")
        await site.add_agent("two")
        site.write_agent("two", site.token("two"))
        await site.start_agent("two")
        await site.online(NEW)
        await site.signed()


def test_a_successor_needs_its_moment_and_a_moment_its_zone(tmp_path: Path) -> None:
    text = (
        'name = "hub.example"\nlisten_mtls = "127.0.0.1:1"\nlisten_web = "127.0.0.1:2"\n'
        'mtls_url = "https://h:1"\nweb_url = "https://h:2"\n'
    )
    path = tmp_path / "hub.toml"
    for pool, wrong in (
        ('tokens = ["one/a"]\nsuccessors = ["two/b"]\n', "since"),
        ('tokens = ["one/a"]\nsince = "2027-01-31T06:00:00Z"\n', "successors"),
        ('tokens = ["one/a"]\nsuccessors = ["two/b"]\nsince = "2027-01-31T06:00:00"\n', "time zone"),
        ('tokens = ["one/a"]\nsuccessors = ["two/b"]\nsince = "soon"\n', "since"),
        ('tokens = ["one/a", "one/a"]\n', "twice"),
        ('tokens = ["one"]\n', "AGENT/TOKEN"),
        ("tokens = []\n", "AGENT/TOKEN"),
    ):
        path.write_text(f'{text}\n[[pool]]\nprofile = "demo"\n{pool}')
        with pytest.raises(ConfigError) as caught:
            load_hub_config(tmp_path)
        assert wrong in str(caught.value)
