# SPDX-License-Identifier: Apache-2.0
"""Witnesses that answer late, wrong or never count for nothing, and hold nobody up who has a quorum without them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privyseal.hub.services import witnesses
from privyseal.tlog.cosignature import Cosigner
from privyseal.tlog.witness import parse_add_checkpoint
from witnessed import WitnessedSite, running_site

EVIL = Cosigner(name="evil.example/w", key=Ed25519PrivateKey.from_private_bytes(b"e" * 32))
OTHER_KEY = Cosigner(name="evil.example/w", key=Ed25519PrivateKey.from_private_bytes(b"f" * 32))
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def witness(answer: Answer) -> AsyncIterator[str]:
    """A witness that answers so; its URL."""
    transports: set[asyncio.Transport] = set()

    async def noted(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        transports.add(request.transport)
        return await answer(request)

    app = web.Application()
    app.router.add_post("/add-checkpoint", noted)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
        # That closed what was open, and a close waits until somebody has read what was written: nobody may.
        for transport in transports:
            transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[WitnessedSite]:
    async with running_site(tmp_path, level="before-use") as running:
        yield running


async def rely_on(site: WitnessedSite, url: str, threshold: str) -> None:
    """The other agent and the evil witness."""
    other = site.hub.hub.dispatch.links["other"].witness
    await site.name_policy(
        f"witness other {other}\nwitness evil {EVIL.verifier.vkey} {url}\ngroup g {threshold} other evil\nquorum g\n"
    )


async def sign(site: WitnessedSite) -> dict[str, str]:
    (item,) = (await site.send(await site.ask())).document["items"]
    found: dict[str, str] = item
    return found


async def never(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 10_000)


def told(status: int, text: str, kind: str = "text/plain") -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, content_type=kind)

    return answer


def line_by(cosigner: Cosigner, *, other_text: bool = False) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        text = parse_add_checkpoint(await request.read()).note.text
        return web.Response(text=cosigner.sign("x" + text if other_text else text, 7).line)

    return answer


LIES: dict[str, Answer] = {
    "never": never,
    "endless": endless,
    "garbage": told(200, "garbage"),
    "nothing": told(200, ""),
    "redirect": told(302, ""),
    "page": told(200, "<html>", "text/html"),
    "unknown log": told(404, "no"),
    "ahead": told(409, "9999\n", "text/x.tlog.size"),
    "behind without end": told(409, "0\n", "text/x.tlog.size"),
    "no size": told(409, "many\n", "text/x.tlog.size"),
    "another key": line_by(OTHER_KEY),
    "another checkpoint": line_by(EVIL, other_text=True),
}


@pytest.mark.parametrize("lie", LIES)
async def test_it_counts_for_nothing(site: WitnessedSite, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    monkeypatch.setattr(witnesses, "_QUORUM_SECONDS", 0.5)
    async with witness(LIES[lie]) as url:
        await rely_on(site, url, "all")

        item = await sign(site)

        assert (item["state"], item["code"]) == ("failed", "witness.quorum")
        problems = {one.witness.name: one.problem for one in site.hub.hub.witnesses.status()}
        assert problems["other"] == ""
        assert problems["evil"] or lie == "never"  # that one is still being asked


@pytest.mark.parametrize("lie", LIES)
async def test_it_holds_nobody_up(site: WitnessedSite, lie: str) -> None:
    async with witness(LIES[lie]) as url:
        await rely_on(site, url, "any")
        asked = await site.ask()
        async with asyncio.timeout(8):  # a round would wait for it for ten seconds
            (item,) = (await site.send(asked)).document["items"]
        assert item["state"] == "signed"
        assert (await sign(site))["state"] == "signed"


async def test_one_that_comes_late_counts_from_then_on(site: WitnessedSite) -> None:
    go = asyncio.Event()

    async def late(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await go.wait()
        return web.Response(text=EVIL.sign(parse_add_checkpoint(body).note.text, 7).line)

    async with witness(late) as url:
        await rely_on(site, url, "all")
        signing = asyncio.create_task(sign(site))
        await site.until(lambda: site.hub.hub.witnesses.status()[0].size > 0)
        assert not signing.done()
        go.set()
        assert (await signing)["state"] == "signed"
