# SPDX-License-Identifier: Apache-2.0
"""An agent that comes back while its first announcement is still being written (seed 1008117 found it)."""

import asyncio
import random

import pytest

from lane_services import lane_services
from lying_hub import HUB, NOW_MS
from privyseal.errors import IdentityError
from privyseal.hub.links import AgentLink
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.lane import Lane
from privyseal.hub.services.pools import Pools
from privyseal.wire.link import HubMessage
from simulated.chaos import Chaos
from simulated.disk import Database, HeadDisk
from simulated.loop import SimLoop
from simulated.site import first_day
from simulated.store import SimStore, open_store


async def send(_: HubMessage) -> None:
    """The agent hears nothing in this test."""


async def hang_up() -> None:
    """Nobody is at the other end."""


def new_link() -> AgentLink:
    return AgentLink(first_day().agent, send, held_size=0, hang_up=hang_up)


async def announced_twice(store: SimStore) -> tuple[Lane, ...]:
    """A dead link and a living one, one after the other; the lanes that their announcements made."""
    dispatch, dead, living = Dispatch(lane_services(store, clock=lambda: NOW_MS), Pools(())), new_link(), new_link()
    hung_up: list[AgentLink] = []

    async def hang_up_dead() -> None:
        hung_up.append(dead)

    dead.hang_up = hang_up_dead
    dispatch.linked(dead)
    first = asyncio.create_task(dispatch.announce(dead, first_day().announcements[:1]))
    await asyncio.sleep(0)
    dispatch.linked(living)
    await dispatch.announce(living, first_day().announcements[:1])
    with pytest.raises(IdentityError):
        await first
    dispatch.unlinked(dead)
    assert hung_up == [dead], "whoever is at its other end must hear of it, to come back"
    return dispatch.lanes


@pytest.mark.parametrize("seed", range(8))
def test_a_profile_has_one_lane_and_it_belongs_to_the_living_link(seed: int) -> None:
    chaos = Chaos(choice=random.Random(0), active=False)
    loop = SimLoop(random.Random(seed))
    database, head = Database(name="hub database", chaos=chaos, image=first_day().hub_image), HeadDisk(chaos)
    head.restore(first_day().head_file)
    log_key = first_day().trust.log_key
    store = open_store(database, head, loop.world, origin=HUB, log_key=log_key, clock=lambda: NOW_MS)
    running = loop.world.spawn(announced_twice(store))

    assert loop.run(running.done, until=60.0)
    loop.end()

    assert [lane.linked for lane in running.result()] == [True]
