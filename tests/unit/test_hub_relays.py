# SPDX-License-Identifier: Apache-2.0
"""What a hub does with the two ends of a USB lease's stream, without sockets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from channels import REQUEST_ID, Lease, ended
from memory_pipes import BOUND_BYTES, MemoryPipe, pipe_pair
from privyseal.errors import UnavailableError
from privyseal.hub.services.relays import RelayEnd, RelayLimits, Relays, Side
from privyseal.ports.store import Enrolment, Tx
from privyseal.relay.channel import Channel
from privyseal.storage.sqlite import SqliteStore

CLIENT = Enrolment(
    role="client",
    name="ci-7",
    certificate_sha256=b"c" * 32,
    request_key=b"r" * 32,
    profiles=("*",),
    salt=bytes(16),
    entry_index=1,
)
AGENT = replace(CLIENT, role="agent", name="lab", certificate_sha256=b"a" * 32, request_key=b"R" * 32)
MEMBERS = {Side.CLIENT: CLIENT, Side.AGENT: AGENT}


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    opened = await SqliteStore.open(
        ":memory:", origin="log.example/relay", log_key=key, clock=lambda: 1_000, head_path=None
    )

    async def write(tx: Tx) -> None:
        await tx.add_enrolment(CLIENT)
        await tx.add_enrolment(AGENT)

    await opened.write(write)
    yield opened
    await opened.close()


def relays_of(store: SqliteStore, **limits: float) -> Relays:
    return Relays(store=store, clock=lambda: 1_000, limits=replace(RelayLimits(), **limits))  # type: ignore[arg-type]


class Dialled:
    """One end, as a client or agent holds it, and what became of it at the hub."""

    def __init__(self, relays: Relays, side: Side) -> None:
        self.pipe, at_hub = pipe_pair()
        self._carrying = asyncio.create_task(self._carry(relays, side, at_hub))

    async def _carry(self, relays: Relays, side: Side, at_hub: MemoryPipe) -> str:
        try:
            with relays.place(MEMBERS[side]):
                end = RelayEnd(request_id=REQUEST_ID, side=side, member=MEMBERS[side], pipe=at_hub)
                return await relays.carry(end)
        finally:
            at_hub.close()

    async def over(self) -> str:
        return await self._carrying


async def dialled(relays: Relays, side: Side) -> Dialled:
    """An end that the hub has begun with."""
    made = Dialled(relays, side)
    for _ in range(3):
        await asyncio.sleep(0)
    return made


@pytest.mark.parametrize("first", list(Side))
async def test_two_ends_of_one_request_meet(store: SqliteStore, first: Side) -> None:
    relays, lease = relays_of(store), Lease()
    ends = {first: await dialled(relays, first)}
    assert relays.waiting == 1
    second = Side.AGENT if first is Side.CLIENT else Side.CLIENT
    ends[second] = await dialled(relays, second)
    assert relays.waiting == 0

    pipes = await lease.pinned(ends[Side.AGENT].pipe, ends[Side.CLIENT].pipe)
    agent, client = map(Channel, pipes)
    await client.write(b"VERIFY" * 1000)
    await agent.write(b"OK")
    assert await agent.read() == b"VERIFY" * 1000
    assert await client.read() == b"OK"
    (relay,) = relays.relays
    assert (relay.client, relay.agent, relay.since_ms) == ("ci-7", "lab", 1_000)
    assert relay.bytes_from[Side.CLIENT] > 6000 > relay.bytes_from[Side.AGENT] > 500
    carried = relays.bytes_from

    await ended(agent, client)
    assert {await end.over() for end in ends.values()} <= {"the agent is gone", "the client is gone"}
    assert relays.relays == ()
    assert relays.bytes_from[Side.CLIENT] >= carried[Side.CLIENT]
    assert relays.outcomes == {"paired": 1}


async def test_an_end_alone_waits_so_long(store: SqliteStore) -> None:
    relays = relays_of(store, pair_seconds=0.01)
    alone = await dialled(relays, Side.CLIENT)

    assert await alone.over() == "the agent did not come within 0.01 s"
    assert await alone.pipe.receive() == b""
    assert relays.waiting == 0
    assert relays.outcomes == {"unpaired": 1}


@pytest.mark.parametrize("side", list(Side))
async def test_a_second_connection_takes_the_place_of_the_first(store: SqliteStore, side: Side) -> None:
    """Whether that waits or is paired: the other side hears of it, and dials again."""
    relays = relays_of(store)
    waiting = await dialled(relays, side)
    again = await dialled(relays, side)
    assert await waiting.over() == f"another connection of the {side.value} took its place"
    other = await dialled(relays, Side.AGENT if side is Side.CLIENT else Side.CLIENT)
    assert len(relays.relays) == 1

    third = await dialled(relays, side)
    assert await again.over() == await other.over() == f"another connection of the {side.value} took its place"
    assert (relays.waiting, len(relays.relays)) == (1, 0)
    await relays.stop()
    assert "hub stops" in await third.over()


async def test_a_member_whose_standing_ends_has_nothing_left(store: SqliteStore) -> None:
    relays = relays_of(store)
    for role, name in (("client", "ci-7"), ("agent", "lab")):
        ends = [await dialled(relays, side) for side in Side]
        relays.end_member(role, "other")
        assert len(relays.relays) == 1
        relays.end_member(role, name)
        for end in ends:
            assert await end.over() == f"the standing of this {role} has ended"
            assert await end.pipe.receive() == b""
    waiting = await dialled(relays, Side.AGENT)
    relays.end_member("agent", "lab")
    assert await waiting.over() == "the standing of this agent has ended"


@pytest.mark.parametrize("how", ["revoked", "joined-again"])
async def test_a_standing_that_another_hub_has_ended_is_seen(store: SqliteStore, how: str) -> None:
    relays = relays_of(store)
    ends = [await dialled(relays, side) for side in Side]
    await relays.look()
    assert len(relays.relays) == 1

    async def write(tx: Tx) -> None:
        revoked, renewed = replace(CLIENT, revoked_ms=5), replace(CLIENT, certificate_sha256=b"n" * 32)
        await tx.add_enrolment(revoked if how == "revoked" else renewed)

    await store.write(write)
    await relays.look()
    for end in ends:
        assert await end.over() == "a standing was ended at another hub"


async def test_ends_are_bounded(store: SqliteStore) -> None:
    relays = relays_of(store, most=3, most_of_a_member=2)
    with relays.place(CLIENT), relays.place(CLIENT):
        with pytest.raises(UnavailableError, match="'ci-7' has 2 streams") as caught, relays.place(CLIENT):
            pass
        assert caught.value.code == "relay.too_many"
        with relays.place(AGENT), pytest.raises(UnavailableError), relays.place(AGENT):
            pass
    with relays.place(CLIENT):
        pass
    assert relays.outcomes == {"refused": 2}


async def test_an_end_that_does_not_take_what_is_sent_stops_the_other(store: SqliteStore) -> None:
    """A hub holds a piece, whoever sends how much."""
    relays = relays_of(store)
    ends = {side: await dialled(relays, side) for side in Side}
    out, back = ends[Side.CLIENT].pipe.out, ends[Side.AGENT].pipe.back

    async def flood() -> None:
        while True:
            await ends[Side.CLIENT].pipe.send(bytes(65_536))

    flooding = asyncio.create_task(flood())
    while out.held < BOUND_BYTES or back.held < BOUND_BYTES:  # noqa: ASYNC110 - until it can only wait
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert relays.bytes_from[Side.CLIENT] <= back.held + 65_536
    assert max(out.most_held, back.most_held) <= BOUND_BYTES + 65_536
    await ends[Side.AGENT].pipe.receive()
    flooding.cancel()
    await relays.stop()
    await asyncio.gather(*(end.over() for end in ends.values()))
