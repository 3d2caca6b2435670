# SPDX-License-Identifier: Apache-2.0
"""A hub takes back what the token has not begun: each item is answered at once, and never signed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gated_token import GatedToken
from lied_to_agent import Begun, Bench, Served, open_bench
from lying_hub import TOKEN, Ask, make_trust, pe_preimage
from privyseal.wire.jobs import OutcomeQuery, Recall

TRUST = make_trust()
HANDED_BACK = "job.not_used"


@pytest.fixture
async def token() -> GatedToken:
    return GatedToken()


@pytest.fixture
async def bench(tmp_path: Path, token: GatedToken) -> AsyncIterator[Bench]:
    bench = await open_bench(tmp_path, Served(token=token, spki=token.spki), TRUST)
    yield bench
    await bench.journal.close()


@pytest.fixture
def asks(bench: Bench) -> list[Ask]:
    """Three clients' requests of two items each."""
    return [
        bench.hub.ask(bench.hub.enrol(), pe_preimage(2 * number), pe_preimage(2 * number + 1)) for number in range(3)
    ]


@pytest.fixture
async def begun(bench: Bench, token: GatedToken, asks: list[Ask]) -> Begun:
    """One job with all of them, whose first item is at the token."""
    begun = await bench.begin(bench.hub.job(*asks))
    await token.begun.get()
    return begun


def items(*asks: Ask) -> dict[tuple[str, int], str]:
    return {(ask.request_id, item): HANDED_BACK for ask in asks for item in (0, 1)}


def let_all_through(token: GatedToken) -> None:
    for _ in range(6):
        token.gate.release()


async def test_a_request_is_taken_back_while_another_is_at_the_token(
    bench: Bench, token: GatedToken, asks: list[Ask], begun: Begun
) -> None:
    await bench.executor.recall(Recall(token=TOKEN, requests=(asks[1].request_id, "of nobody")))

    assert await begun.hear() == items(asks[1]), "in one message, before the token has ended"
    let_all_through(token)
    said = await begun.end()
    assert said == {(ask.request_id, item): "" for ask in (asks[0], asks[2]) for item in (0, 1)}
    assert len(bench.token.signed) == 4


async def test_all_is_taken_back_but_what_is_at_the_token(
    bench: Bench, token: GatedToken, asks: list[Ask], begun: Begun
) -> None:
    await bench.executor.recall(Recall(token=TOKEN))
    await bench.executor.recall(Recall(token=TOKEN))

    heard = await begun.hear()
    assert heard == {(asks[0].request_id, 1): HANDED_BACK, **items(*asks[1:])}
    let_all_through(token)
    assert await begun.end() == {(asks[0].request_id, 0): ""}


async def test_what_waits_behind_another_job_is_taken_back_too(bench: Bench, token: GatedToken, begun: Begun) -> None:
    prepared_ask = bench.hub.ask(bench.hub.enrol(), pe_preimage(8), pe_preimage(9))
    prepared = await bench.begin(bench.hub.job(prepared_ask))

    await bench.executor.recall(Recall(token=TOKEN, requests=(prepared_ask.request_id,)))

    assert await prepared.hear() == items(prepared_ask)
    let_all_through(token)
    assert set((await begun.end()).values()) == {""}
    assert await prepared.end() == {}


async def test_another_token_s_recall_takes_nothing_back(bench: Bench, token: GatedToken, begun: Begun) -> None:
    await bench.executor.recall(Recall(token="another"))
    let_all_through(token)

    assert set((await begun.end()).values()) == {""}


async def test_a_recall_that_comes_before_the_job_has_begun_at_all(bench: Bench, asks: list[Ask]) -> None:
    begun = await bench.begin(bench.hub.job(*asks))
    await bench.executor.recall(Recall(token=TOKEN))

    assert await begun.end() == items(*asks)
    assert bench.token.signed == []


async def test_the_journal_knows_what_was_taken_back(
    bench: Bench, token: GatedToken, asks: list[Ask], begun: Begun
) -> None:
    await bench.executor.recall(Recall(token=TOKEN, requests=(asks[1].request_id,)))
    await begun.hear()

    told = [await bench.executor.outcome(OutcomeQuery(request=ask.request_id, item=0, fence=1)) for ask in asks]
    assert [(one.state, one.code) for one in told] == [("running", ""), ("failed", HANDED_BACK), ("running", "")]
    let_all_through(token)
    await begun.end()
    await bench.refuses(bench.hub.job(asks[1]), "journal.used")
    let_all_through(token)
    await bench.signs(bench.hub.job(asks[1], fence=2))


async def test_a_job_that_is_being_accepted_is_taken_back_too(bench: Bench, asks: list[Ask]) -> None:
    """It came over one link, and the recall over another."""
    begun, _ = await asyncio.gather(bench.begin(bench.hub.job(*asks)), bench.executor.recall(Recall(token=TOKEN)))

    assert await begun.hear() == items(*asks)
    assert bench.token.signed == []
