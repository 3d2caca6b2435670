# SPDX-License-Identifier: Apache-2.0
"""What the token has not begun when the hub's lease of it ends, or goes on under a higher fence, is handed back."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gated_token import GatedToken
from lied_to_agent import OTHER_PROFILE, Bench, Served, open_bench
from lying_hub import PROFILE, TOKEN, Ask, make_trust, pe_preimage
from privyseal.wire.jobs import OutcomeQuery

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


def ask_for(bench: Bench, count: int, *, key: str = "one", profile: str = PROFILE) -> Ask:
    member = bench.hub.enrol(profiles=("*",))
    preimages = (pe_preimage(number) for number in range(count))
    return bench.hub.ask(member, *preimages, idempotency_key=key, profile=profile)


async def outcomes(bench: Bench, ask: Ask, *, fence: int = 1) -> list[tuple[str, str]]:
    replies = [
        await bench.executor.outcome(OutcomeQuery(request=ask.request_id, item=item, fence=fence))
        for item in range(len(ask.statement.items))
    ]
    return [(reply.state, reply.code) for reply in replies]


async def test_a_lease_that_ends_between_two_items(bench: Bench, token: GatedToken) -> None:
    ask = ask_for(bench, 3)
    begun = await bench.begin(bench.hub.job(ask, lease_ms=10_000))
    await token.begun.get()
    bench.now_s[0] = 9.5
    token.gate.release()

    said = await begun.end()

    assert list(said.values()) == ["", HANDED_BACK, HANDED_BACK]
    assert len(bench.token.signed) == 1
    assert await outcomes(bench, ask) == [("done", ""), ("failed", HANDED_BACK), ("failed", HANDED_BACK)]


@pytest.mark.parametrize(
    ("lease_ms", "at_s", "signs"),
    [
        (10_000, 8.99, True),
        (10_000, 9.0, False),
        (1_000, 0.79, True),
        (1_000, 0.8, False),
        (0, 0.0, False),
        (-5, 0.0, False),
        (2**63, 2.0**40, True),
    ],
)
async def test_a_lease_has_a_margin_of_a_fifth_but_at_most_a_second(
    bench: Bench, token: GatedToken, lease_ms: int, at_s: float, *, signs: bool
) -> None:
    token.gate.release()
    (served, _) = bench.executor._keys.values()
    async with served.turns.rest():
        begun = await bench.begin(bench.hub.job(ask_for(bench, 1), lease_ms=lease_ms))
        bench.now_s[0] = at_s

    assert list((await begun.end()).values()) == ["" if signs else HANDED_BACK]
    assert len(bench.token.signed) == signs


@pytest.mark.parametrize(
    ("renewed", "signs"),
    [
        ({"fence": 2, "lease_ms": 60_000}, True),
        ({"fence": 3, "lease_ms": 60_000}, True),
        ({"fence": 1, "lease_ms": 60_000}, False),
        ({"fence": 3, "lease_ms": 60_000, "over": "another link"}, False),
        ({"fence": 2, "lease_ms": 60_000, "over": "another link"}, False),
        ({"fence": 2, "lease_ms": 60_000, "token": "another"}, False),
        ({"fence": 2, "lease_ms": 1}, False),
    ],
    ids=["renewed", "raised", "lower fence", "taken over", "of another hub", "another token", "for too short"],
)
async def test_a_renewal_puts_the_end_off(
    bench: Bench, token: GatedToken, renewed: dict[str, Any], *, signs: bool
) -> None:
    begun = await bench.begin(bench.hub.job(ask_for(bench, 2), fence=2, lease_ms=10_000))
    await token.begun.get()
    bench.now_s[0] = 5.0
    await bench.renew(**renewed)
    bench.now_s[0] = 50.0
    token.gate.release()
    token.gate.release()

    ended = await begun.end()
    assert [ended[key] for key in sorted(ended)] == ["", "" if signs else HANDED_BACK]


async def test_a_renewal_never_brings_the_end_nearer(bench: Bench, token: GatedToken) -> None:
    begun = await bench.begin(bench.hub.job(ask_for(bench, 2), lease_ms=10_000))
    await token.begun.get()
    await bench.renew(fence=1, lease_ms=0)
    bench.now_s[0] = 8.0
    token.gate.release()
    token.gate.release()

    assert list((await begun.end()).values()) == ["", ""]


async def test_what_waits_is_handed_back_when_the_lease_ends_also_while_the_token_is_at_work(
    tmp_path: Path, token: GatedToken
) -> None:
    bench = await open_bench(tmp_path, Served(token=token, spki=token.spki), TRUST, monotonic=time.monotonic)
    ask = ask_for(bench, 3)
    begun = await bench.begin(bench.hub.job(ask, lease_ms=300))
    await token.begun.get()

    assert await begun.hear() == {(ask.request_id, 1): HANDED_BACK, (ask.request_id, 2): HANDED_BACK}
    assert await outcomes(bench, ask) == [("running", ""), ("failed", HANDED_BACK), ("failed", HANDED_BACK)]
    token.gate.release()
    assert await begun.end() == {(ask.request_id, 0): ""}
    await bench.journal.close()


async def test_another_hub_under_a_higher_fence_has_what_waits_for_its_token_handed_back(
    bench: Bench, token: GatedToken
) -> None:
    first, second = ask_for(bench, 2), ask_for(bench, 1, key="two", profile=OTHER_PROFILE)
    former = await bench.begin(bench.hub.job(first, fence=1))
    await token.begun.get()
    later = await bench.begin(bench.hub.job(second, fence=2), over="another link")  # of another profile, too

    assert await former.hear() == {(first.request_id, 1): HANDED_BACK}
    token.gate.release()
    token.gate.release()
    assert await former.end() == {(first.request_id, 0): ""}
    assert await later.end() == {(second.request_id, 0): ""}


async def test_a_hub_that_raises_its_own_fence_goes_on_with_what_waits(bench: Bench, token: GatedToken) -> None:
    first, second = ask_for(bench, 2), ask_for(bench, 1, key="two")
    former = await bench.begin(bench.hub.job(first, fence=1))
    await token.begun.get()
    later = await bench.begin(bench.hub.job(second, fence=2))

    for _ in range(3):
        token.gate.release()
    assert set((await former.end()).values()) == set((await later.end()).values()) == {""}


async def test_a_hub_that_takes_over_is_answered_for_what_can_come_no_more(bench: Bench, token: GatedToken) -> None:
    """It asks for the outcome of the former hub's job, which is still on its way and comes too late."""
    await bench.renew(fence=2, lease_ms=60_000, over="another link")
    assert await bench.journal.max_fence(TOKEN) == 2
    ask = ask_for(bench, 1)
    assert await outcomes(bench, ask) == [("never", "")]

    late = await bench.begin(bench.hub.job(ask, fence=1))

    assert list((await late.end()).values()) == ["job.stale_fence"]
    assert bench.token.signed == []


async def test_the_same_fence_hands_nothing_back(bench: Bench, token: GatedToken) -> None:
    asks = ask_for(bench, 2), ask_for(bench, 2, key="two")
    jobs = [await bench.begin(bench.hub.job(ask)) for ask in asks]
    for _ in range(4):
        token.gate.release()

    assert [set((await job.end()).values()) for job in jobs] == [{""}, {""}]


async def test_a_higher_fence_that_was_not_accepted_hands_nothing_back(bench: Bench, token: GatedToken) -> None:
    begun = await bench.begin(bench.hub.job(ask_for(bench, 2)))
    await token.begun.get()
    expired = bench.hub.ask(bench.hub.enrol(), not_after=1)
    await bench.refuses(bench.hub.job(expired, fence=2), "job.expired")
    token.gate.release()
    token.gate.release()

    assert list((await begun.end()).values()) == ["", ""]


async def test_a_key_that_goes_out_of_use_hands_back_all_that_waits(bench: Bench, token: GatedToken) -> None:
    ask = ask_for(bench, 3)
    begun = await bench.begin(bench.hub.job(ask))
    await token.begun.get()
    bench.executor.serve(())
    token.gate.release()

    assert list((await begun.end()).values()) == ["", HANDED_BACK, HANDED_BACK]


async def test_a_token_with_several_workers_begins_nothing_after_the_lease(tmp_path: Path, token: GatedToken) -> None:
    bench = await open_bench(tmp_path, Served(token=token, spki=token.spki), TRUST, workers=3)
    begun = await bench.begin(bench.hub.job(ask_for(bench, 5), lease_ms=10_000))
    for _ in range(3):
        await token.begun.get()
    bench.now_s[0] = 9.0
    for _ in range(3):
        token.gate.release()

    assert sorted((await begun.end()).values()) == ["", "", "", HANDED_BACK, HANDED_BACK]
    await bench.journal.close()


async def test_what_was_handed_back_may_be_asked_for_again_under_a_higher_fence(
    bench: Bench, token: GatedToken
) -> None:
    ask = ask_for(bench, 1)
    begun = await bench.begin(bench.hub.job(ask, lease_ms=0))
    assert list((await begun.end()).values()) == [HANDED_BACK]
    token.gate.release()

    await bench.signs(bench.hub.job(ask, fence=2))
    assert bench.token.signed == [await asyncio.wait_for(token.begun.get(), 1)]
