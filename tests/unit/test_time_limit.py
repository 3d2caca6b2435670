# SPDX-License-Identifier: Apache-2.0
"""A thousand clients that lost their hub at the same moment come back at different ones, and none for ever."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.client.time_limit import TimeLimit, pause_seconds

CLIENTS = 1000
DICE = random.Random(2026)
FRACTIONS = tuple(DICE.random() for _ in range(CLIENTS))


def pauses(attempt: int, at_least: float = 0.0) -> list[float]:
    return [pause_seconds(attempt, fraction, at_least) for fraction in FRACTIONS]


@pytest.mark.parametrize(("attempt", "bound"), [(0, 0.5), (1, 1.0), (4, 8.0), (6, 30.0), (60, 30.0), (10**9, 30.0)])
@pytest.mark.parametrize("at_least", [0.0, 5.0, 60.0])
def test_a_thousand_pauses_fill_their_room_evenly(attempt: int, bound: float, at_least: float) -> None:
    found = pauses(attempt, at_least)

    room = max(bound, at_least)
    assert at_least <= min(found) <= max(found) <= at_least + room
    tenths = Counter(int((pause - at_least) / room * 10) for pause in found)
    assert len(tenths) == 10
    assert max(tenths.values()) < 1.5 * CLIENTS / 10


def test_a_thousand_clients_at_the_longest_pause_are_a_trickle() -> None:
    """Six tries each, all begun in the same instant: in no second of the last round come more than 60 of them."""
    dice = random.Random(2026)
    arrivals = [sum(pause_seconds(attempt, dice.random()) for attempt in range(7)) for _ in range(CLIENTS)]

    busiest = Counter(int(moment) for moment in arrivals).most_common(1)[0][1]
    assert busiest < 60


@given(attempt=st.integers(0, 40), fraction=st.floats(0, 1), at_least=st.floats(0, 100), left=st.floats(0, 100))
def test_a_pause_ends_before_the_deadline(attempt: int, fraction: float, at_least: float, left: float) -> None:
    deadline = TimeLimit(seconds=left, clock=lambda: 1000.0).begin()

    pause = deadline.next_pause(attempt, fraction, at_least)

    if pause is None:
        assert left - at_least < 0.2
    else:
        assert at_least <= pause <= deadline.left_seconds + 1e-9


def test_time_begins_anew_with_each_signature_unless_it_is_for_all() -> None:
    now = [0.0]
    stalling = TimeLimit(seconds=10, clock=lambda: now[0]).begin()
    in_all = TimeLimit(seconds=10, in_all=True, clock=lambda: now[0]).begin()

    told = []
    for now[0], came in ((9.0, True), (18.0, True), (27.0, False), (29.0, False)):
        told.append((stalling.is_over(came=came), in_all.is_over(came=came)))

    assert told == [(False, False), (False, True), (False, True), (True, True)]


def test_who_does_not_wait_still_fetches_what_is_there() -> None:
    once = TimeLimit(seconds=0, clock=lambda: 5.0).begin()

    assert not once.is_over(came=True)
    assert once.is_over(came=False)
    assert once.next_pause(0, 0.5, 0.0) is None
