# SPDX-License-Identifier: Apache-2.0
"""Several hubs over one log: what crosses on its way is handed back, and a fork is a fork as before."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec.structs import replace
from structlog.testing import capture_logs

from gated_token import GatedToken
from lied_to_agent import Bench, Served, codes, open_bench
from lying_hub import NOW_MS, Ask, LyingHub, make_trust
from privyseal.agent.executor import Shown
from privyseal.agent.witness import LinkWitness, agent_cosigner
from privyseal.tlog.entry import Deny
from privyseal.wire.jobs import ItemDone, Job, OutcomeQuery

TRUST = make_trust()
BEHIND = "job.checkpoint_behind"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    token = GatedToken(open_for=1000)
    bench = await open_bench(tmp_path, Served(token=token, spki=token.spki), TRUST, several_hubs=True)
    yield bench
    await bench.journal.close()


@pytest.fixture
def other(bench: Bench) -> LyingHub:
    """A second process of the same hub."""
    return bench.hub.beside()


def asks_of(hub: LyingHub, count: int) -> list[Ask]:
    member = hub.enrol()
    return [hub.ask(member, idempotency_key=str(number)) for number in range(count)]


def levels(logs: list[structlog.typing.EventDict]) -> set[str]:
    return {log["log_level"] for log in logs if log["log_level"] in {"warning", "error", "critical"}}


async def test_a_job_that_crosses_another_hub_s_is_handed_back_and_signed_later(bench: Bench, other: LyingHub) -> None:
    first, second = asks_of(bench.hub, 2)
    early = bench.hub.job(first)
    await bench.signs(other.job(second))

    with capture_logs() as logs:
        await bench.refuses(early, BEHIND)

    assert levels(logs) == {"warning"}
    assert bench.told == [bench.executor.held.size], "its hub is told what is held"
    bench.hub.held_size = bench.told[0]
    await bench.signs(bench.hub.job(first, fence=2))


async def test_a_newer_checkpoint_is_no_better_if_it_is_proven_from_elsewhere(bench: Bench, other: LyingHub) -> None:
    first, second = asks_of(bench.hub, 2)
    await bench.signs(other.job(first))
    bench.hub.held_size = 0

    await bench.refuses(bench.hub.job(second), BEHIND)


async def test_what_follows_a_job_that_crossed_is_handed_back_too(bench: Bench, other: LyingHub) -> None:
    """Its hub sent it before it knew, and takes the agent to hold what it did not take."""
    first, second, third = asks_of(bench.hub, 3)
    held_by_both = bench.hub.held_size
    await bench.signs(other.job(first))
    bench.hub.held_size = held_by_both
    jobs = [bench.hub.job(second), bench.hub.job(third)]

    with capture_logs() as logs:
        for job in jobs:
            await bench.refuses(job, BEHIND)

    assert levels(logs) == {"warning"}
    bench.hub.held_size = bench.told[-1]
    await bench.signs(bench.hub.job(second, third, fence=2))


async def test_a_proof_that_fails_is_a_fork(bench: Bench, other: LyingHub) -> None:
    first, second = asks_of(bench.hub, 2)
    await bench.signs(other.job(first))
    bench.hub.held_size = other.held_size
    job = bench.hub.job(second)

    with capture_logs() as logs:
        await bench.refuses(replace(job, consistency=(bytes(32),)), "log.fork")

    assert levels(logs) == {"critical"}
    await bench.signs(job)


async def test_two_logs_of_one_size_are_a_fork_whatever_the_proof(bench: Bench, other: LyingHub) -> None:
    first, second = asks_of(bench.hub, 2)
    fork = bench.hub.fork(bench.hub.log.size)
    await bench.signs(other.job(first))

    with capture_logs() as logs:
        await bench.refuses(fork.job(second), "log.fork")

    assert levels(logs) == {"critical"}


async def test_a_hub_that_shows_less_than_it_has_shown_itself_has_rewound_its_log(bench: Bench) -> None:
    first, second, third = asks_of(bench.hub, 3)
    old, shown = bench.hub.fork(bench.hub.log.size), Shown()
    await bench.take(bench.hub.job(first), shown)
    await bench.take(bench.hub.job(second), shown)
    assert shown.size == bench.executor.held.size

    late = old.job(third)

    with capture_logs() as logs:
        await bench.refuses(late, "log.rewound", shown=shown)
        await bench.refuses(late, BEHIND)  # as from a hub that has shown nothing yet

    assert levels(logs) == {"critical", "warning"}


async def test_the_agent_of_one_hub_knows_no_crossing(tmp_path: Path) -> None:
    token = GatedToken(open_for=9)
    bench = await open_bench(tmp_path, Served(token=token, spki=token.spki), TRUST)
    first, second = asks_of(bench.hub, 2)
    early = bench.hub.job(first)
    await bench.signs(replace(bench.hub.beside().job(second), old_size=0, consistency=()))

    await bench.refuses(early, "log.rewound")
    bench.hub.held_size = 1
    await bench.refuses(bench.hub.job(first), "log.fork")
    assert bench.told == []
    await bench.journal.close()


async def test_jobs_of_two_links_come_one_after_the_other(bench: Bench) -> None:
    """Both send at the same time, and prove from what they were told last: each item is signed once in the end."""
    hubs = [bench.hub, bench.hub.beside()]
    waiting = [asks_of(hub, 5) for hub in hubs]
    shown = [Shown(), Shown()]
    signed: list[ItemDone] = []
    crossed = 0
    fence = 0
    while any(waiting):
        fence += 1
        sent: list[tuple[int, Ask, Job]] = []
        for place, hub in enumerate(hubs):
            if waiting[place]:
                hub.held_size = bench.executor.held.size
                sent.append((place, waiting[place][0], hub.job(waiting[place][0], fence=fence)))
        said = await asyncio.gather(*(bench.take(job, shown[place]) for place, _, job in sent))
        for (place, ask, _), ((answer,)) in zip(sent, said, strict=True):
            if isinstance(answer, ItemDone):
                signed.append(answer)
                waiting[place].remove(ask)
            else:
                assert answer.code == BEHIND
                crossed += 1

    assert len({one.request for one in signed}) == len(signed) == len(bench.token.signed) == 10
    assert crossed > 0


async def test_a_job_that_is_refused_for_its_profile_counts_as_seen(bench: Bench) -> None:
    """The hub goes on from there, as it does after any other refusal."""
    first, second = asks_of(bench.hub, 2)

    await bench.refuses(replace(bench.hub.job(first), profile="none"), "profile.not_served")
    await bench.signs(bench.hub.job(second))


async def test_what_is_being_accepted_over_one_link_is_not_unknown_over_another(bench: Bench) -> None:
    (ask,) = asks_of(bench.hub, 1)
    query = OutcomeQuery(request=ask.request_id, item=0, fence=1)

    begun, told = await asyncio.gather(bench.begin(bench.hub.job(ask)), bench.executor.outcome(query))

    assert told.state in {"running", "done"}
    assert list((await begun.end()).values()) == [""]


async def test_a_job_on_its_way_is_too_late_once_another_hub_was_told_never(bench: Bench) -> None:
    """Whoever was told has put on record that the token was not used under that fence."""
    asks = asks_of(bench.hub, 2)
    former, later = Shown(link="former hub's"), Shown(link="later hub's")
    query = OutcomeQuery(request=asks[0].request_id, item=0, fence=1)
    assert (await bench.executor.outcome(query, later.link)).state == "never"

    said = codes(await bench.take(bench.hub.job(*asks), former))

    assert said == {(asks[0].request_id, 0): "job.stale_fence", (asks[1].request_id, 0): ""}
    assert list(codes(await bench.take(bench.hub.job(asks[0]), later)).values()) == [""], "who was told may go on"


@pytest.mark.parametrize("several", [True, False])
async def test_a_checkpoint_to_cosign_that_crosses_is_no_alarm(tmp_path: Path, *, several: bool) -> None:
    token = GatedToken(open_for=9)
    bench = await open_bench(tmp_path, Served(token=token, spki=token.spki), TRUST, several_hubs=several)
    key = Ed25519PrivateKey.generate()
    witness = LinkWitness(
        cosigner=agent_cosigner(TRUST.bundle.hub, "agent", key), executor=bench.executor, clock=lambda: NOW_MS
    )
    shown = Shown()
    early = bench.hub.add_checkpoint(0)
    await bench.signs(bench.hub.job(*asks_of(bench.hub, 1)))

    with capture_logs() as logs:
        assert (await witness.add_checkpoint(early, TRUST.bundle, shown)).status == 409
    assert levels(logs) == {"warning" if several else "critical"}
    told = await witness.add_checkpoint(bench.hub.add_checkpoint(bench.executor.held.size), TRUST.bundle, shown)
    assert (told.status, shown.size) == (200, bench.hub.log.size)

    with capture_logs() as logs:  # it has shown more than that itself
        assert (await witness.add_checkpoint(early, TRUST.bundle, shown)).status == 409
    assert levels(logs) == {"critical"}
    fork = bench.hub.fork(bench.hub.log.size - 1)
    fork.log.append(Deny(ts=NOW_MS, client="", profile="", request="", code="filler"))
    with capture_logs() as logs:
        assert (
            await witness.add_checkpoint(fork.add_checkpoint(bench.executor.held.size), TRUST.bundle, shown)
        ).status == 409
    assert levels(logs) == {"critical"}
    await bench.journal.close()
