# SPDX-License-Identifier: Apache-2.0
"""What nobody foresaw ends the agent with a word: it never stays behind without its link, or without an answer."""

import asyncio
import functools
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lying_hub import PROFILE, TOKEN
from lying_link import LinkSite, Peer, open_link_site
from privyseal.agent.check import KeyProfile
from privyseal.agent.served import ServedKey
from privyseal.errors import UnavailableError
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.clock import system_clock
from privyseal.ports.token import KeyCounter, ReaderUse, TokenInfo, TokenKey
from privyseal.storage.journal import SqliteJournal
from privyseal.wire.jobs import ItemRefused

PATIENCE_SECONDS = 20.0


class BrokenToken:
    """An adapter with a defect: it raises what the port does not allow."""

    async def info(self) -> TokenInfo:
        raise RuntimeError("defect")

    async def keys(self) -> tuple[TokenKey, ...]:
        raise RuntimeError("defect")

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        raise RuntimeError("defect")

    async def counters(self) -> tuple[KeyCounter, ...]:
        raise RuntimeError("defect")

    async def reader_use(self) -> ReaderUse | None:
        raise RuntimeError("defect")

    async def probe(self, count: int) -> tuple[int, ...] | None:
        raise RuntimeError("defect")

    async def close(self) -> None:
        """Nothing is open."""


class BreakingClock:
    """Works until it breaks."""

    broken = False

    def __call__(self) -> int:
        if self.broken:
            raise RuntimeError("defect")
        return system_clock()


async def failure(site: LinkSite) -> UnavailableError:
    """How the agent's process would end, though nobody asks it to stop."""
    with pytest.raises(UnavailableError) as caught:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await site.agent.wait(asyncio.Event())
    return caught.value


async def job_is_sent(site: LinkSite) -> None:
    ask = site.hub.ask(site.hub.enrol())

    async def script(peer: Peer) -> None:
        await site.greet(peer)
        await peer.send(site.hub.job(ask))

    await site.play(script)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[LinkSite]:
    async with open_link_site(tmp_path) as site:
        yield site


async def test_a_job_that_ends_unforeseen_ends_the_agent(site: LinkSite) -> None:
    profile = KeyProfile(
        name=PROFILE, token=TOKEN, spki=site.spki, level="traced", opaque=(), not_before_ms=0, not_after_ms=2**52
    )
    site.agent.executor.serve((ServedKey(profile=profile, token=BrokenToken(), key_id=b"\x01"),))
    await job_is_sent(site)

    error = await failure(site)

    assert error.code == "agent.internal"
    assert "RuntimeError" in error.message


async def test_a_link_that_ends_unforeseen_ends_the_agent(tmp_path: Path) -> None:
    clock = BreakingClock()
    async with open_link_site(tmp_path, clock) as site:
        clock.broken = True
        await job_is_sent(site)

        assert (await failure(site)).code == "agent.internal"
        await site.agent.stop()  # what failed does not keep the rest from being closed


class NoCommit(sqlite3.Connection):
    """A journal whose medium dies in the middle of a commit."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.in_transaction and self.execute("SELECT count(*) FROM operation").fetchone()[0]:
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, parameters)


async def test_a_journal_that_must_be_opened_again_ends_the_agent(site: LinkSite) -> None:
    """It answers nothing: after its next start the hub asks, and the journal knows."""
    connect = functools.partial(sqlite3.connect, isolation_level=None, check_same_thread=False, factory=NoCommit)
    site.agent.executor._journal = await SqliteJournal.open(
        ":memory:", origin=site.hub.trust.bundle.origin, connect=connect
    )
    ask = site.hub.ask(site.hub.enrol())

    async def script(peer: Peer) -> None:
        await site.greet(peer)
        await peer.send(site.hub.job(ask))
        await peer.until_gone()

    await site.agent.executor.load()
    playing = asyncio.create_task(site.play(script))
    error = await failure(site)
    await site.agent.stop()
    await playing

    assert error.code == "agent.journal", "whoever runs it starts it again: the exit status does not forbid it"


async def test_an_agent_that_is_asked_to_stop_has_not_failed(site: LinkSite) -> None:
    stop = asyncio.Event()
    stop.set()

    await site.agent.wait(stop)


async def test_a_prepared_item_whose_key_goes_out_of_use_is_handed_back_unused(site: LinkSite) -> None:
    """Frozen or drained while it waited for its turn: the token is not used, and the hub may ask again."""
    ask = site.hub.ask(site.hub.enrol())
    (served,) = site.agent.executor._keys.values()

    async def script(peer: Peer) -> None:
        await site.greet(peer)
        async with served.turns.rest():
            await peer.send(site.hub.job(ask))
            while not served.turns._line._waiters:  # noqa: ASYNC110 - the item has no event of its own
                await asyncio.sleep(0.01)
            site.agent.executor.serve(())
        handed_back = await peer.answer()
        assert isinstance(handed_back, ItemRefused)
        assert (handed_back.code, handed_back.unknown) == ("job.not_used", False)
        site.agent.executor.serve((served,))
        again = site.hub.job(ask, fence=2)
        await peer.send(again)
        site.check_done(again, await peer.answer())

    await site.play(script)
