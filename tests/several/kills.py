# SPDX-License-Identifier: Apache-2.0
"""Ends a hub, or the agent, at the n-th thing that it does to the world, before it or after it.

What a hub does: it commits, and sends to the agent. What the agent does: it answers. After an effect it has happened,
and who caused it has never learned so; before it, it has not.
"""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from programs import until
from several.proxy import Proxy, Trap
from several.run import BOUND_SECONDS, Lab

__all__ = ["EFFECTS", "Effect", "cut_at_statement", "is_commit", "kill_at"]

#: A PING or PONG of a WebSocket, within a TLS record, is shorter; every message of ours is longer.
_LEAST_MESSAGE_BYTES = 48
_APPLICATION_DATA = 23


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What is counted.

    Attributes:
        victim: `hub` (the one that has the token) or `agent`.
        way: On which way it shows.
        direction: Seen from who dials.
        counts: Which messages are such.
        carried_on: Whether the message arrives although its sender has ended.
    """

    victim: str
    way: str
    direction: str
    counts: Callable[[bytes], bool]
    carried_on: bool


def is_commit(message: bytes) -> bool:
    return message[:1] == b"Q" and message[5:] == b"COMMIT\0"


def _is_committed(message: bytes) -> bool:
    return message[:1] == b"C" and message[5:] == b"COMMIT\0"


def _is_message(record: bytes) -> bool:
    return record[0] == _APPLICATION_DATA and len(record) >= _LEAST_MESSAGE_BYTES


def _link(victim: str, direction: str, *, carried_on: bool) -> Effect:
    return Effect(victim=victim, way="link", direction=direction, counts=_is_message, carried_on=carried_on)


EFFECTS: dict[str, Effect] = {
    "hub, before a commit": Effect(victim="hub", way="database", direction="there", counts=is_commit, carried_on=False),
    "hub, after a commit": Effect(
        victim="hub", way="database", direction="back", counts=_is_committed, carried_on=False
    ),
    "hub, before a message": _link("hub", "back", carried_on=False),
    "hub, after a message": _link("hub", "back", carried_on=True),
    "hub, before it hears": _link("hub", "there", carried_on=False),
    "agent, before an answer": _link("agent", "there", carried_on=False),
    "agent, after an answer": _link("agent", "there", carried_on=True),
}


def kill_at(lab: Lab, effect: Effect, number: int, *, items: int = 6) -> bool:
    """Have something signed, and end the victim at its n-th effect; all must be answered.

    Returns:
        Whether there were so many effects.
    """
    lab.both_serve()
    holder = lab.find_holder()
    victim = lab.cell.hubs[holder] if effect.victim == "hub" else lab.agent
    way: Proxy = getattr(lab.ways[holder], effect.way)
    client = lab.client(first=holder)
    history = lab.ask(client, items)
    killed = victim.children

    def kill() -> None:
        os.kill(victim.process.pid, signal.SIGKILL)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        if not effect.carried_on:
            way.hang_up_within()

    trap = way.trap = Trap(direction=effect.direction, counts=effect.counts, number=number, do=kill)
    with ThreadPoolExecutor() as beside:
        answered = beside.submit(client.send, history)
        until(lambda: trap.sprung.is_set() or answered.done(), "an end, of either", seconds=BOUND_SECONDS)
        way.trap = None
        if trap.sprung.is_set():
            victim.process.wait(timeout=30)
            if effect.victim == "agent":
                lab.cell.site.start_agent()
        answered.result()
    assert history.failure is None, history.failure
    return trap.sprung.is_set()


def _is_statement(message: bytes) -> bool:
    return message[:1] == b"B"


def cut_at_statement(lab: Lab, number: int) -> bool:
    """Have something signed, and cut the hub that has the token off its database at its n-th statement.

    Returns:
        Whether there were so many.
    """
    holder = lab.find_holder()
    way = lab.ways[holder].database
    trap = way.trap = Trap(direction="there", counts=_is_statement, number=number, do=way.hang_up_within)
    history = lab.sign(first=holder, items=6)
    way.trap = None
    assert history.failure is None, history.failure
    return trap.sprung.is_set()
