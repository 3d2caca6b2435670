# SPDX-License-Identifier: Apache-2.0
"""Turns at a token: how many are inside at a time, and that rest is rest."""

import asyncio

import pytest

from privyseal.agent.turns import Turns

NEVER_QUICK = 0.0
ALWAYS_QUICK = 60.0


async def most_inside(turns: Turns, callers: int = 5) -> int:
    """How many of several callers were inside at the same time, each until all others had their chance."""
    now = most = 0

    async def call() -> None:
        nonlocal now, most
        async with turns:
            now += 1
            most = max(most, now)
            for _ in range(10 * callers):
                await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(call() for _ in range(callers)))
    return most


@pytest.mark.parametrize(
    ("workers", "quick_seconds", "most"),
    [(1, NEVER_QUICK, 1), (1, ALWAYS_QUICK, 2), (3, NEVER_QUICK, 3), (3, ALWAYS_QUICK, 3)],
)
async def test_a_quick_token_with_one_worker_lets_one_more_in(
    monkeypatch: pytest.MonkeyPatch, workers: int, quick_seconds: float, most: int
) -> None:
    monkeypatch.setattr("privyseal.agent.turns._QUICK_SECONDS", quick_seconds)
    turns = Turns(workers)
    async with turns:  # by which it is known
        pass
    assert await most_inside(turns) == most


async def test_one_that_became_slow_lets_nobody_more_in(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    monkeypatch.setattr("privyseal.agent.turns._QUICK_SECONDS", ALWAYS_QUICK)
    assert await most_inside(turns) == 2
    monkeypatch.setattr("privyseal.agent.turns._QUICK_SECONDS", NEVER_QUICK)
    async with turns:
        pass
    assert await most_inside(turns) == 1


async def test_rest_begins_when_all_have_left_and_nobody_comes_in_meanwhile() -> None:
    turns = Turns(2)
    said: list[str] = []
    leave = asyncio.Event()

    async def inside(name: str) -> None:
        async with turns:
            said.append(f"{name} in")
            await leave.wait()
            said.append(f"{name} out")

    async def rest() -> None:
        async with turns.rest():
            said.append("rest")
            await asyncio.sleep(0)
            said.append("rested")

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b"):
            group.create_task(inside(name))
        await asyncio.sleep(0)
        group.create_task(rest())
        await asyncio.sleep(0)
        group.create_task(inside("c"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert said == ["a in", "b in"]
        leave.set()
    assert said == ["a in", "b in", "a out", "b out", "rest", "rested", "c in", "c out"]


async def test_who_is_cancelled_in_the_line_holds_nobody_up() -> None:
    turns = Turns()
    async with turns:
        waiting = [asyncio.create_task(most_inside(turns, 1)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
    assert await waiting[1] == 1
