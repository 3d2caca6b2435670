# SPDX-License-Identifier: Apache-2.0
"""A key profile gets another certificate while a request is on its way that only the former one's key will do for."""

import asyncio
import dataclasses
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pe_samples import make_pe
from pool_site import PROFILE, PoolSite, pool_table, running_pool
from privyseal.client.certificate_choice import thumbprint
from privyseal.client.digests import DigestSigner
from privyseal.client.hub import HubClient
from privyseal.client.journal import RequestJournal
from privyseal.client.preparing import Work
from privyseal.client.reading import Plan
from privyseal.client.signing import Outcome, Signer
from privyseal.client.time_limit import TimeLimit
from privyseal.errors import ConflictError
from privyseal.formats import registry
from privyseal.formats.authenticode import PE
from privyseal.formats.opaque import DIGEST
from privyseal.ports.clock import system_clock
from programs import privyseal, succeeded

OLD, NEW = "one/software", "two/software"
AGENTS = {"one": ("software",), "two": ("software",)}
MINUTE_MS = 60_000


@pytest.fixture
def binding(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if what is signed of a program named the certificate, as it is with formats to come."""
    named = dataclasses.replace(PE, certificate_in_preimage=True)
    monkeypatch.setattr(registry.detect_format, "__defaults__", ((named, DIGEST),))


def works(folder: Path, count: int = 1) -> tuple[Work, ...]:
    files = [folder / f"{place}.exe" for place in range(count)]
    for place, file in enumerate(files):
        file.write_bytes(make_pe(overlay=bytes([place]) * 8))
    return tuple(Work(path=file, target=file) for file in files)


def sign(site: PoolSite, wanted: tuple[Work, ...], said: list[str], chain: tuple[bytes, ...] = ()) -> list[Outcome]:
    limit = TimeLimit(seconds=20, notice=said.append)
    return list(Signer(site.client, profile=PROFILE, limit=limit).sign_all(wanted, Plan(chain=chain)))


def conflict(call: Callable[..., object], *arguments: object) -> str:
    """The next step that is said when the certificate is not there any more, by exception or outcome."""
    try:
        outcomes = call(*arguments)
    except ConflictError as error:
        found: object = error
    else:
        assert isinstance(outcomes, list)
        found = outcomes[0].error
    assert isinstance(found, ConflictError)
    assert found.code == "certificate.changed"
    return found.hint


def kept(site: PoolSite) -> int:
    return len(list(RequestJournal(site.client.identity.journal).open_requests()))


async def replaced(site: PoolSite, resting: AsyncExitStack) -> None:
    """The agent ends what its token is at, and comes back with another token in the place of that."""
    stopping = asyncio.create_task(site.stop_agent("one"))
    await site.until(lambda: not site.hub.hub.dispatch.links)
    await resting.aclose()
    await stopping
    site.write_agent("one", site.token("one", "second"))
    await site.start_agent("one")
    await site.online("one/second")


async def busy(site: PoolSite) -> AsyncExitStack:
    """The token is at one item, has one prepared, and gets no further before this is closed."""
    resting = AsyncExitStack()
    await resting.enter_async_context(site.rest(OLD))
    for _ in range(2):
        await site.queue()
    return resting


@pytest.mark.usefixtures("binding")
async def test_files_that_wait_are_asked_for_once_more(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"one": ("software",)}, "") as site:
        await site.online(OLD)
        resting = await busy(site)
        said: list[str] = []
        signing = asyncio.create_task(asyncio.to_thread(sign, site, works(tmp_path, 3), said))
        await site.until(lambda: site.hub.hub.board.items == 3)
        await replaced(site, resting)
        outcomes = await signing

        assert [one.error for one in outcomes] == [None] * 3
        assert {one.signed.spki_sha256 for one in outcomes if one.signed} == {site.keys["one/second"]}
        assert said == [
            f"key profile {PROFILE} has got another certificate: 3 of 3 files are asked for once more, with that"
        ]
        assert kept(site) == 0


@pytest.mark.usefixtures("binding")
async def test_files_that_are_refused_at_once_are_asked_for_once_more(tmp_path: Path) -> None:
    """The moment of a rollover lies between the question for the certificate and the request."""
    pool = pool_table((OLD,), successors=(NEW,), since_ms=system_clock() + MINUTE_MS)
    async with running_pool(tmp_path, AGENTS, pool) as site:
        await site.online(OLD)
        site.leaps_when = lambda: kept(site) > 0  # journalled before it is sent
        said: list[str] = []
        outcomes = await asyncio.to_thread(sign, site, works(tmp_path, 3), said)

        assert [one.error for one in outcomes] == [None] * 3
        assert await site.signatures() == {NEW: 3}
        assert len(said) == 1
        assert kept(site) == 0


@pytest.mark.usefixtures("binding")
async def test_a_certificate_that_somebody_chose_is_not_replaced(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {"one": ("software",)}, "") as site:
        await site.online(OLD)
        chain = site.served.profile.chain
        resting = await busy(site)
        said: list[str] = []
        (work,) = works(tmp_path)
        before = work.path.read_bytes()
        signing = asyncio.create_task(asyncio.to_thread(conflict, sign, site, (work,), said, chain))
        await site.until(lambda: site.hub.hub.board.items == 1)
        await replaced(site, resting)
        assert "privyseal status" in await signing
        assert "privyseal status" in await asyncio.to_thread(conflict, sign, site, (work,), said, chain)

        assert (said, work.path.read_bytes()) == ([], before)


async def test_a_bare_digest_is_its_callers_to_make_anew(tmp_path: Path) -> None:
    async with running_pool(tmp_path, {}, "") as site:
        await site.add_agent("one")
        site.write_agent("one", site.token("one", opaque='["digest"]'))
        await site.start_agent("one")
        await site.online(OLD)
        signer = await asyncio.to_thread(lambda: DigestSigner(site.client, profile=PROFILE))
        await asyncio.to_thread(signer.sign, "sha256", bytes(32))
        await site.stop_agent("one")
        site.write_agent("one", site.token("one", "second", opaque='["digest"]'))
        await site.start_agent("one")
        await site.online("one/second")

        assert "anew" in await asyncio.to_thread(conflict, signer.sign, "sha256", bytes(31) + b"1")
        assert kept(site) == 0


async def test_signtool_signs_with_the_certificate_that_was_named(tmp_path: Path) -> None:
    async with running_pool(tmp_path, AGENTS, pool_table((OLD, NEW))) as site:
        await site.online(OLD, NEW)
        view = await asyncio.to_thread(lambda: HubClient(site.client).profile(PROFILE))
        for named in (view.chain, *view.others):
            files = await asyncio.to_thread(signtool, tmp_path, "/sha1", thumbprint(named[0]))
            assert all(named[0] in file for file in files)
        assert await site.signatures() == {OLD: 3, NEW: 3}

        await asyncio.to_thread(signtool, tmp_path, "/n", "Lab")
        assert sum((await site.signatures()).values()) == 9


def signtool(folder: Path, *which: str) -> list[bytes]:
    """Sign three programs with a certificate that is chosen; what they are then."""
    files = [work.path for work in works(folder, 3)]
    succeeded(privyseal("signtool", "sign", "/fd", "SHA256", *which, *files, config=folder / "client.toml"))
    return [file.read_bytes() for file in files]
