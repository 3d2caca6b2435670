# SPDX-License-Identifier: Apache-2.0
"""An agent that hands every item back is asked less and less often, until it signs again."""

import asyncio

from privyseal.hub.services.lane_rest import Rest
from privyseal.wire.jobs import ItemDone, ItemRefused

UNUSED = ItemRefused(request="r", item=0, fence=1, branch="token", code="job.not_used", message="")
FAILED = ItemRefused(request="r", item=0, fence=1, branch="token", code="token.failed", message="")
DONE = ItemDone(request="r", item=0, fence=1, signature=b"s")


async def paused(rest: Rest, over: asyncio.Event, *answers: ItemDone | ItemRefused) -> float:
    """How long a lane rests after these answers, in seconds."""
    loop = asyncio.get_running_loop()
    over.clear()
    since_s = loop.time()
    rest.settled(answers)
    if rest.active:
        await over.wait()
    return loop.time() - since_s


async def test_each_pause_is_longer_until_something_is_signed() -> None:
    over = asyncio.Event()
    rest = Rest(over.set)
    assert await paused(rest, over, FAILED) < 0.04, "what has ended is no reason to rest"
    pauses = [await paused(rest, over, UNUSED) for _ in range(4)]
    assert pauses == sorted(pauses)
    assert pauses[-1] >= 0.39
    assert await paused(rest, over, DONE, UNUSED) < 0.04

    assert await paused(rest, over, UNUSED) < 0.3, "as at first"


async def test_it_is_tried_with_one_item_until_something_is_signed() -> None:
    over = asyncio.Event()
    rest = Rest(over.set)
    assert rest.room(64) == 64
    await paused(rest, over, UNUSED)
    assert rest.room(64) == 1
    await paused(rest, over, DONE)
    assert rest.room(64) == 64
