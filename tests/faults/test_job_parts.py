# SPDX-License-Identifier: Apache-2.0
"""A job with items of several requests: each part stands or falls by itself, all are journalled with one fsync."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from failing_journal import Faults
from lied_to_agent import OTHER_PROFILE, Bench, Served, codes, items_of, open_bench, resent, with_part
from lying_hub import HOUR_MS, NOW_MS, PROFILE, Ask, LyingHub, Trust, pe_preimage
from privyseal.wire.jobs import Job

pytest_plugins = ["lying_hub_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


def asks_of(hub: LyingHub, count: int, **changes: object) -> list[Ask]:
    """As many clients, each with a request of its own."""
    return [hub.ask(hub.enrol(), idempotency_key=f"client {number}", **changes) for number in range(count)]


async def test_the_parts_of_a_job_are_signed_in_their_order(bench: Bench) -> None:
    member = bench.hub.enrol()
    asks = [*asks_of(bench.hub, 2), bench.hub.ask(member, pe_preimage(1), pe_preimage(2)), *asks_of(bench.hub, 1)]
    job = bench.hub.job(*asks)

    await bench.signs(job)

    assert [entry.entry for entry in await bench.journal.entries(0, 10)] == [item.entry for item in items_of(job)]


async def test_the_parts_of_a_job_take_one_fsync(tmp_path: Path, served: Served, trust: Trust) -> None:
    faults = Faults()
    bench = await open_bench(tmp_path, served, trust, connect=faults.connect)
    job = bench.hub.job(*asks_of(bench.hub, 20))
    faults.seen.clear()

    await bench.signs(job)

    assert faults.seen.count("PRAGMA synchronous = FULL") == 1
    await bench.journal.close()


async def signs_all_but(bench: Bench, job: Job, place: int, code: str) -> None:
    """The part at a place is refused, item by item, and every other one is signed."""
    said = codes(await bench.take(job))
    wanted: list[str] = []
    for number, part in enumerate(job.parts):
        wanted += [code if number == place else ""] * len(part.items)
    assert sorted(said.values()) == sorted(wanted)
    assert [one for one in said.values() if one] == [code] * len(job.parts[place].items)
    assert len(bench.token.signed) == wanted.count("")


async def test_a_statement_that_does_not_hold_takes_no_other_down(bench: Bench) -> None:
    job = bench.hub.job(*asks_of(bench.hub, 3))

    await signs_all_but(bench, with_part(job, envelope=job.parts[1].envelope), 0, "envelope.signature")


async def test_an_item_that_does_not_hold_takes_its_own_part_down_alone(bench: Bench) -> None:
    member = bench.hub.enrol()
    job = bench.hub.job(bench.hub.ask(member, pe_preimage(1), pe_preimage(2)), *asks_of(bench.hub, 2))
    spoilt = tuple(replace(item, index=item.index + place) for place, item in enumerate(job.parts[0].items))

    await signs_all_but(bench, with_part(job, items=spoilt), 0, "proof.inclusion")


async def test_a_request_that_has_expired_takes_no_other_down(bench: Bench) -> None:
    late = bench.hub.ask(bench.hub.enrol(), not_after=NOW_MS - 1)

    await signs_all_but(bench, bench.hub.job(*asks_of(bench.hub, 1), late, *asks_of(bench.hub, 1)), 1, "job.expired")


async def test_a_grant_that_has_expired_takes_no_other_down(tmp_path: Path, served: Served, trust: Trust) -> None:
    bench = await open_bench(tmp_path, served, trust, level="pinned")
    asks = asks_of(bench.hub, 3)
    job = bench.hub.job(*asks)
    changes: tuple[dict[str, Any], ...] = ({}, {"issued": NOW_MS - 2 * HOUR_MS, "not_after": NOW_MS - 1}, {})
    parts = tuple(
        replace(part, membership=replace(part.membership, grant=trust.grant(ask.member, **change)))
        for part, ask, change in zip(job.parts, asks, changes, strict=True)
    )

    await signs_all_but(bench, replace(job, parts=parts), 1, "job.grant")
    await bench.journal.close()


@pytest.mark.parametrize(("fence", "code"), [(1, "journal.used"), (2, "journal.signed")])
async def test_what_was_used_before_takes_no_other_down(bench: Bench, fence: int, code: str) -> None:
    used, *fresh = asks_of(bench.hub, 3)
    await bench.signs(bench.hub.job(used))
    bench.token.signed.clear()

    await signs_all_but(bench, bench.hub.job(fresh[0], used, fresh[1], fence=fence), 1, code)


async def test_what_is_at_work_takes_no_other_down(bench: Bench) -> None:
    running, fresh = asks_of(bench.hub, 2)
    job = bench.hub.job(running)

    async def unheard(message: object) -> None:
        raise AssertionError(message)

    rest = await bench.executor.accept(job, unheard)
    assert rest is not None

    await signs_all_but(bench, bench.hub.job(running, fresh, fence=2), 0, "job.running")
    rest.close()


async def test_two_parts_of_one_request_are_refused_and_no_other(bench: Bench) -> None:
    twice = bench.hub.ask(bench.hub.enrol(), pe_preimage(1), pe_preimage(2))
    job = bench.hub.job(twice, *asks_of(bench.hub, 1))
    part, other = job.parts
    halves = (replace(part, items=part.items[:1]), other, replace(part, items=part.items[1:]))

    said = codes(await bench.take(replace(job, parts=halves)))

    assert sorted(said.values()) == ["", "job.items", "job.items"]
    assert {code for (request, _), code in said.items() if request == twice.request_id} == {"job.items"}


async def test_a_second_part_of_a_request_is_refused_also_if_the_first_does_not_hold(bench: Bench) -> None:
    twice = bench.hub.ask(bench.hub.enrol(), pe_preimage(1), pe_preimage(2))
    job = bench.hub.job(twice)
    (part,) = job.parts
    halves = (replace(part, items=(replace(part.items[0], index=0),)), replace(part, items=part.items[1:]))

    assert set(codes(await bench.take(replace(job, parts=halves))).values()) == {"proof.inclusion", "job.items"}
    assert bench.token.signed == []


async def test_what_is_wrong_with_the_checkpoint_refuses_all(bench: Bench) -> None:
    job = bench.hub.job(*asks_of(bench.hub, 3))

    await bench.refuses(replace(job, checkpoint=bench.hub.checkpoint(origin="other.example/log")), "checkpoint.origin")
    await bench.refuses(replace(job, consistency=(bytes(32),)), "log.fork")
    await bench.signs(job)


async def test_a_job_without_parts_changes_nothing(bench: Bench) -> None:
    await bench.refuses(bench.hub.job(), "job.items")


async def test_a_job_under_the_lease_of_another_token_is_refused(bench: Bench, ask: Ask) -> None:
    await bench.refuses(bench.hub.job(ask, token="another"), "profile.not_served")
    await bench.refuses(bench.hub.job(ask, token=""), "profile.not_served")
    assert await bench.journal.max_fence("another") == 0


async def test_a_fence_is_the_token_s_whatever_the_profile(bench: Bench) -> None:
    member = bench.hub.enrol(profiles=("*",))
    first, second, third = (
        bench.hub.ask(member, profile=profile, idempotency_key=key)
        for profile, key in ((PROFILE, "1"), (OTHER_PROFILE, "2"), (OTHER_PROFILE, "3"))
    )
    await bench.signs(bench.hub.job(first, fence=7))

    await bench.refuses(bench.hub.job(second, fence=6), "job.stale_fence")
    await bench.signs(bench.hub.job(third, fence=7))


async def test_an_enrolment_that_several_parts_show_is_proven_once(bench: Bench) -> None:
    """Two hundred requests of one client cost one proof."""
    member = bench.hub.enrol()
    job = bench.hub.job(*(bench.hub.ask(member, idempotency_key=str(number)) for number in range(3)))
    unproven = tuple(replace(part, membership=replace(part.membership, inclusion=())) for part in job.parts)

    await bench.refuses(replace(job, parts=unproven), "proof.inclusion")
    await bench.signs(resent(replace(job, parts=(job.parts[0], *unproven[1:])), bench))
