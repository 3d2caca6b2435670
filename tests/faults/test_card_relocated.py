# SPDX-License-Identifier: Apache-2.0
"""A relay between a card and its host, as a delay of the lab's card behind a real pcscd; a busy host is none."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from card_calls import RELEASE_ID
from lab.card_lab import CardLab, card_lab
from lab.piv.orders import Set
from privyseal.agent.config import TokenTable
from privyseal.agent.custody_spans import Reason
from privyseal.agent.host_load import HostLoad
from privyseal.agent.relocation import ROUND_SAMPLES
from privyseal.agent.relocation_watch import RelocationWatch
from privyseal.agent.turns import Turns
from privyseal.pki.mechanism import Mechanism
from privyseal.storage.journal import SqliteJournal
from privyseal.tokens.factory import open_token
from privyseal.tokens.supervisor import WorkerToken
from relocating import place_watch

pytestmark = pytest.mark.interop

GET_DATA = 0xCA
BURNERS = 2 * (os.cpu_count() or 1)
LOOKS = 2_000


@pytest.fixture(scope="module")
def opened() -> Iterator[CardLab]:
    with card_lab() as lab:
        yield lab


@pytest.fixture
def lab(opened: CardLab) -> Iterator[CardLab]:
    yield opened
    opened.renew()


@dataclass(kw_only=True)
class Site:
    token: WorkerToken
    watch: RelocationWatch

    async def looks(self, count: int) -> tuple[Reason, ...]:
        """Look so often, each time as if the last measurement were long ago."""
        for _ in range(count):
            self.watch.came()
            await self.watch.looked()
        return self.watch.standing


@asynccontextmanager
async def watched(
    lab: CardLab, directory: Path, *, is_busy: Callable[[], bool] = lambda: False, **table: Any
) -> AsyncIterator[Site]:
    journal = await SqliteJournal.open(directory / "journal.db", origin="hub.example")
    token = open_token(lab.config(environment=lab.locking_environment))
    await token.info()
    here = TokenTable(name="card", kind="pkcs11", **table)
    try:
        yield Site(token=token, watch=place_watch(here, token, turns=Turns(), journal=journal, is_busy=is_busy))
    finally:
        await token.close()
        await journal.close()


def probes(lab: CardLab) -> int:
    """How many commands of the watch the card has answered; the module has some of the same kind of its own."""
    return sum((one.ins, one.p1, one.p2) == (GET_DATA, 0, 0) for one in lab.card.state.commands)


def relay(lab: CardLab, added_ms: int) -> None:
    lab.card.turn(Set(delays_ms={GET_DATA: added_ms} if added_ms else {}))


@pytest.mark.parametrize("added_ms", [3, 20])
async def test_a_relay_is_noticed_and_gone_when_it_is(lab: CardLab, tmp_path: Path, added_ms: int) -> None:
    async with watched(lab, tmp_path) as site:
        assert await site.looks(10) == ()
        relay(lab, added_ms)
        assert await site.looks(3) == (), "three looks could be chance"
        assert await site.looks(1) == (Reason.CARD_TIMING,)
        relay(lab, 0)

        assert await site.looks(4) == ()


async def test_a_relay_is_noticed_after_a_restart_and_stays_until_it_is_accepted(lab: CardLab, tmp_path: Path) -> None:
    async with watched(lab, tmp_path, relocation="quarantine") as site:
        assert await site.looks(4) == ()
    relay(lab, 20)
    async with watched(lab, tmp_path, relocation="quarantine") as site:
        assert await site.looks(4) == (Reason.CARD_TIMING,)
    relay(lab, 0)
    async with watched(lab, tmp_path, relocation="quarantine") as site:
        assert await site.looks(6) == (Reason.CARD_TIMING,)
        assert site.watch.problem is not None
        assert await site.watch.accept()
        assert await site.looks(6) == ()


async def test_a_card_that_answers_as_ever_is_measured_once_an_hour(lab: CardLab, tmp_path: Path) -> None:
    async with watched(lab, tmp_path) as site:
        for _ in range(20):
            await site.watch.looked()
        learnt = probes(lab)
        assert learnt == 4 * ROUND_SAMPLES
        await site.token.sign(key_id=RELEASE_ID, mechanism=Mechanism.RSA_SHA256, digest=bytes(32))
        for _ in range(20):
            await site.watch.looked()

        assert probes(lab) == learnt, "the module keeps its session meanwhile"


@asynccontextmanager
async def busy_host() -> AsyncIterator[HostLoad]:
    """Programs that burn more than there is, once the kernel has noticed."""
    host = HostLoad()
    async with AsyncExitStack() as burning:
        for _ in range(BURNERS):
            burner = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
            burning.push_async_callback(burner.wait)
            burning.callback(burner.kill)
        async with asyncio.timeout(60):
            while not host.is_busy():  # noqa: ASYNC110 - the kernel tells it every two seconds, and has no event
                await asyncio.sleep(0.1)
        yield host


async def test_a_busy_host_is_no_relay(lab: CardLab, tmp_path: Path) -> None:
    async with busy_host() as host, watched(lab, tmp_path, relocation="quarantine", is_busy=host.is_busy) as site:
        assert await site.looks(LOOKS) == ()


async def test_a_card_is_not_measured_on_a_busy_host_and_is_when_it_is_at_rest(lab: CardLab, tmp_path: Path) -> None:
    busy = True
    async with watched(lab, tmp_path, is_busy=lambda: busy) as site:
        await site.looks(5)
        assert probes(lab) == 0
        busy = False
        await site.looks(4)
        relay(lab, 20)
        busy = True
        assert await site.looks(10) == ()
        busy = False

        assert await site.looks(4) == (Reason.CARD_TIMING,)
