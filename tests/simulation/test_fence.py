# SPDX-License-Identifier: Apache-2.0
"""A fence that was raised in a transaction that failed was not raised: no INTENT may stand under it."""

import random

import pytest

from lane_services import lane_services
from lying_hub import HUB, NOW_MS
from privyseal.errors import UnavailableError
from privyseal.hub.services.lane import Lane
from privyseal.hub.services.lane_parts import LaneRules
from privyseal.hub.services.settling import Answered, write_ended
from privyseal.policy.fair_queue import Pick, Priority, Waiting
from privyseal.ports.queue import Lease, Request
from privyseal.ports.store import ProfileRow, Tx
from privyseal.wire.jobs import ItemRefused
from privyseal.wire.statement import accepted_statement
from simulated.chaos import Chaos
from simulated.disk import Database, HeadDisk
from simulated.loop import SimLoop
from simulated.site import Asked, asked, first_day
from simulated.store import SimStore, open_store


def profile_row() -> ProfileRow:
    announced = first_day().announcements[0]
    return ProfileRow(
        name=announced.name,
        agent=first_day().agent.name,
        token=announced.token,
        chain=announced.chain,
        level="traced",
        opaque=(),
        token_label="",
        token_serial="",
        hardware=False,
        entry_index=0,
    )


async def enqueue(store: SimStore, one: Asked) -> Pick:
    """The request waits; what a lane would pick of it."""
    statement = accepted_statement(one.body.envelope)
    request = Request(
        id=one.request_id,
        client=first_day().clients[one.client].name,
        idempotency_key=statement.idempotency_key,
        profile=statement.profile,
        envelope=one.body.envelope,
        created_ms=statement.created,
        not_after_ms=statement.not_after,
        queued_ms=NOW_MS,
        priority=Priority.NORMAL,
    )

    async def write(tx: Tx) -> int:
        return await tx.add_request(request, one.jobs)

    waiting = Waiting(
        request_id=request.id,
        share=request.client,
        priority=Priority.NORMAL,
        seq=await store.write(write),
        queued_ms=NOW_MS,
        items=len(one.jobs),
    )
    return Pick(waiting=waiting, priority=Priority.NORMAL, items=len(one.jobs))


async def claimed_and_held(store: SimStore) -> tuple[int, Lease | None]:
    """The fence of a job that is claimed after the database has twice refused to raise it, and the lease."""
    lane = Lane(
        profile_row().place,
        lane_services(store, clock=lambda: NOW_MS),
        LaneRules(serves=lambda *_: True, unfit=lambda _: None),
    )
    profile = profile_row()
    await store.write(lane.lease.take)
    picked = await enqueue(store, asked(0, 0, 1, profile.name, 60))
    first = await store.write(lambda tx: lane.claim(tx, profile, (picked,), since_s=0.0))
    assert first is not None
    (part,) = first.parts
    (job,) = part.jobs
    unknown = ItemRefused(
        request=job.request_id,
        item=0,
        fence=job.fence,
        branch="token",
        code="token.timeout",
        message="no answer",
        unknown=True,
    )

    async def full_disk(tx: Tx) -> None:
        answered = Answered(request=part.request, job=job, intent=part.intents[0], answer=unknown)
        assert await write_ended(tx, answered) is not None
        raise UnavailableError("store.unavailable", "the disk is full")

    for _ in range(2):
        with pytest.raises(UnavailableError):
            await store.write(full_disk)
    picked = await enqueue(store, asked(0, 1, 1, profile.name, 60))
    second = await store.write(lambda tx: lane.claim(tx, profile, (picked,), since_s=0.0))
    assert second is not None
    return second.jobs[0].fence, await store.read(lambda tx: tx.lease(profile.place))


def test_a_claim_stands_under_the_fence_that_is_durable() -> None:
    """The next hub counts on from the lease: a fence lower than one in the log would be stale for ever."""
    loop, chaos = SimLoop(random.Random(0)), Chaos(choice=random.Random(0), active=False)
    database, head = Database(name="hub database", chaos=chaos, image=first_day().hub_image), HeadDisk(chaos)
    head.restore(first_day().head_file)
    log_key = first_day().trust.log_key
    store = open_store(database, head, loop.world, origin=HUB, log_key=log_key, clock=lambda: NOW_MS)
    running = loop.world.spawn(claimed_and_held(store))

    assert loop.run(running.done, until=60.0)
    loop.end()

    fence, lease = running.result()
    assert lease is not None
    assert fence == lease.fence
