# SPDX-License-Identifier: Apache-2.0
"""A hub's hold on a token: what the agent is told of it is never more than the database has."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lane_services import lane_services
from privyseal.hub.services.settling import raise_fence
from privyseal.hub.services.token_lease import Change, Hold, TokenLease, left_now_ms
from privyseal.ports.queue import Job
from privyseal.ports.store import Enrolment, Store
from privyseal.storage.sqlite import SqliteStore

PLACE = "lab/ev"
AGENT = Enrolment(
    role="agent",
    name="lab",
    certificate_sha256=bytes(32),
    request_key=bytes(32),
    profiles=(),
    salt=bytes(16),
    entry_index=0,
)


@pytest.fixture
def now_ms() -> list[int]:
    return [1_000_000]


@pytest.fixture
async def store(tmp_path: Path, now_ms: list[int]) -> AsyncIterator[Store]:
    store = await SqliteStore.open(
        tmp_path / "hub.db",
        origin="hub.example",
        log_key=Ed25519PrivateKey.generate(),
        clock=lambda: now_ms[0],
        head_path=tmp_path / "head.checkpoint",
    )
    await store.write(lambda tx: tx.add_enrolment(AGENT))
    yield store
    await store.close()


async def end_ms(store: Store) -> int:
    lease = await store.read(lambda tx: tx.lease(PLACE))
    assert lease is not None
    return lease.expires_ms


@pytest.mark.parametrize("later_ms", [0, 1, 2_499, 2_500, 2_501, 9_999, 50_000])
async def test_the_agent_is_told_of_no_more_than_the_database_has(
    store: Store, now_ms: list[int], later_ms: int
) -> None:
    lease = TokenLease(PLACE, lane_services(store))
    loop = asyncio.get_running_loop()

    async def told(change: Change) -> int:
        """How long it lasts, and what it took to write that down; of that the agent is told the rest."""
        began_s = loop.time()
        renewal = await lease.told(store.write, change)
        assert renewal is not None
        left_ms = await end_ms(store) - now_ms[0]
        assert left_ms - (loop.time() - began_s) * 1000 - 1 <= renewal.lease_ms <= left_ms
        return left_ms

    assert await told(lease.take) == 10_000

    now_ms[0] += later_ms

    assert await told(lease.renew) >= 7_500, "it is put off in time"


async def test_what_the_commit_took_is_taken_off(store: Store) -> None:
    """The database's time runs while a commit waits for its standby, and the agent counts from when it hears of it."""
    lease, loop = TokenLease(PLACE, lane_services(store)), asyncio.get_running_loop()

    async def slow(change: Change) -> Hold | None:
        hold = await store.write(change)
        ready = asyncio.Event()
        loop.call_later(0.3, ready.set)  # the commit
        await ready.wait()
        return hold

    renewal = await lease.told(slow, lease.take)

    assert renewal is not None
    assert 0 < renewal.lease_ms <= 9_700
    assert left_now_ms(10_000, loop.time() - 3.0) <= 7_000
    assert left_now_ms(10_000, loop.time() - 60.0) == 0


async def test_a_lease_that_was_given_back_is_over_at_once(store: Store, now_ms: list[int]) -> None:
    lease = TokenLease(PLACE, lane_services(store))
    await store.write(lease.take)

    await lease.give_back()

    assert await end_ms(store) == now_ms[0]


async def test_two_tokens_never_have_the_same_fence(store: Store, now_ms: list[int]) -> None:
    """An agent that has both knows what it has begun by request, item and fence alone."""
    fences: list[int] = []

    async def take(place: str, holder: str) -> None:
        hold = await store.write(TokenLease(place, lane_services(store, holder=holder)).take)
        assert hold is not None
        fences.append(hold.lease.fence)

    async def hand_back(place: str) -> None:
        job = Job(request_id="r", item=0, profile="p", signed=b"", detail=b"", token=place, fence=max(fences))
        lease = await store.read(lambda tx: tx.lease(place))
        assert lease is not None
        await store.write(lambda tx: raise_fence(tx, replace(job, fence=lease.fence)))
        raised = await store.read(lambda tx: tx.lease(place))
        assert raised is not None
        fences.append(raised.fence)

    for place in (PLACE, "lab/other"):
        await take(place, "this hub")
    for place in (PLACE, "lab/other", PLACE):
        await hand_back(place)
    now_ms[0] += 60_000
    for place in ("lab/other", PLACE):
        await take(place, "another hub")

    assert fences == sorted(set(fences))


async def test_another_s_lease_is_not_put_off(store: Store) -> None:
    await store.write(TokenLease(PLACE, lane_services(store, holder="another")).take)

    assert await store.write(TokenLease(PLACE, lane_services(store)).renew) is None
