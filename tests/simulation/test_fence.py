# SPDX-License-Identifier: Apache-2.0
"""A fence that was raised in a transaction that failed was not raised: no INTENT may stand under it."""

import random

import pytest

from lying_hub import HUB, NOW_MS
from no_witnesses import no_witnesses
from privyseal.errors import UnavailableError
from privyseal.hub.links import AgentLink
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.lane import Lane, LaneServices, _Ended
from privyseal.hub.services.observer import Observer
from privyseal.ports.clock import system_clock
from privyseal.ports.queue import Lease, Request
from privyseal.ports.store import ProfileRow, ReadTx, Tx
from privyseal.wire.jobs import ItemRefused
from privyseal.wire.link import HubMessage
from privyseal.wire.statement import accepted_statement
from simulated.chaos import Chaos
from simulated.disk import Database, HeadDisk
from simulated.loop import SimLoop
from simulated.site import Asked, asked, first_day
from simulated.store import SimStore, open_store


async def send(_: HubMessage) -> None:
    """The agent hears nothing in this test."""


async def hang_up() -> None:
    """Nobody is at the other end."""


def profile_row() -> ProfileRow:
    announced = first_day().announcements[0]
    return ProfileRow(
        name=announced.name,
        agent="agent",
        chain=announced.chain,
        level="traced",
        opaque=(),
        token_label="",
        token_serial="",
        hardware=False,
        entry_index=0,
    )


async def enqueue(store: SimStore, one: Asked) -> None:
    statement = accepted_statement(one.body.envelope)
    request = Request(
        id=one.request_id,
        client=first_day().clients[one.client].name,
        idempotency_key=statement.idempotency_key,
        profile=statement.profile,
        envelope=one.body.envelope,
        created_ms=statement.created,
        not_after_ms=statement.not_after,
    )

    async def write(tx: Tx) -> None:
        await tx.add_request(request, one.jobs)

    await store.write(write)


async def claimed_and_held(store: SimStore) -> tuple[int, Lease | None]:
    """The fence of a job that is claimed after the database has twice refused to raise it, and the lease."""
    audit = Audit(store)
    services = LaneServices(
        store=store,
        audit=audit,
        witnesses=no_witnesses(store, audit),
        observer=Observer(system_clock),
        holder="this hub",
        changed=lambda _: None,
        failed=lambda _: None,
    )
    lane = Lane(profile_row(), services)
    link = AgentLink(first_day().agent, send, held_size=0, hang_up=hang_up)
    await lane.attach(link, lane.profile, None)
    await enqueue(store, asked(0, 0, 1, lane.profile.name, 60))
    first = await store.write(lane.claim)
    assert first is not None
    (job,) = first.jobs
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
        await lane._write_ended(tx, _Ended(job=job, intent=first.intents[0], answer=unknown))
        raise UnavailableError("store.unavailable", "the disk is full")

    for _ in range(2):
        with pytest.raises(UnavailableError):
            await store.write(full_disk)
    await enqueue(store, asked(0, 1, 1, lane.profile.name, 60))
    second = await store.write(lane.claim)
    assert second is not None

    async def read(tx: ReadTx) -> Lease | None:
        return await tx.lease(lane.profile.name)

    return second.jobs[0].fence, await store.read(read)


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
