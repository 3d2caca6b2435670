# SPDX-License-Identifier: Apache-2.0
"""The moment between an agent's return and the lease: nothing may be claimed under a fence that is not held yet."""

import asyncio
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lane_services import lane_services
from privyseal.hub.links import AgentLink
from privyseal.hub.services.lane import Lane
from privyseal.hub.services.lane_parts import LaneRules, Member
from privyseal.ports.clock import system_clock
from privyseal.ports.store import Enrolment, ProfileRow
from privyseal.storage.sqlite import SqliteStore
from privyseal.wire.link import HubMessage

AGENT = Enrolment(
    role="agent",
    name="lab",
    certificate_sha256=bytes(32),
    request_key=bytes(32),
    profiles=(),
    salt=bytes(16),
    entry_index=0,
)
PROFILE = ProfileRow(
    name="demo",
    agent="lab",
    token="ev",
    chain=(),
    level="traced",
    opaque=(),
    token_label="",
    token_serial="",
    hardware=False,
    entry_index=0,
)


async def send(_: HubMessage) -> None:
    """The agent hears nothing in this test."""


async def hang_up() -> None:
    """Nobody is at the other end."""


async def test_a_lane_takes_nothing_before_it_holds_the_lease(tmp_path: Path) -> None:
    store = await SqliteStore.open(
        tmp_path / "hub.db",
        origin="hub.example",
        log_key=Ed25519PrivateKey.generate(),
        clock=system_clock,
        head_path=tmp_path / "head.checkpoint",
    )
    await store.write(lambda tx: tx.add_enrolment(AGENT))
    lane = Lane(PROFILE.place, lane_services(store), LaneRules(serves=lambda *_: True, unfit=lambda _: None))
    lane.attach(AgentLink(AGENT, send, held_size=0, hang_up=hang_up), {PROFILE.name: Member(profile=PROFILE)})
    early, held = [], asyncio.create_task(_until_held(store))
    while not held.done():
        if lane.reserve():
            early.append(lane)
        await asyncio.sleep(0)
    await store.close()

    assert early == [], "a job claimed now would stand in the log under a fence lower than one before it"


async def _until_held(store: SqliteStore) -> None:
    while await store.read(lambda tx: tx.lease(PROFILE.place)) is None:
        pass
