# SPDX-License-Identifier: Apache-2.0
"""A hub that was away has its agents back soon, and not all at the same moment."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from privyseal.agent.backoff import Backoff

LONGEST_SECONDS = 5.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_no_pause_is_longer_than_five_seconds_however_long_a_hub_was_away(fractions: list[float]) -> None:
    backoff = Backoff()

    pauses = [backoff.draw(fraction) for fraction in fractions]

    assert 0.25 <= pauses[0] <= 0.5, "a hub that was only restarted is dialled at once"
    assert all(pause <= LONGEST_SECONDS for pause in pauses)
    assert all(pause >= LONGEST_SECONDS / 2 for pause in pauses[4:]), "one that is away for long is left alone"


@given(st.integers(0, 100))
def test_it_begins_anew_with_a_link_that_stood(draws: int) -> None:
    backoff = Backoff()
    for _ in range(draws):
        backoff.draw(1.0)

    backoff.begin_anew()

    assert backoff.draw(1.0) == 0.5


def test_a_thousand_agents_come_back_at_different_moments() -> None:
    dice = random.Random(2026)
    arrivals = []
    for _ in range(1000):
        backoff = Backoff()
        arrivals.append(sum(backoff.draw(dice.random()) for _ in range(8)))

    busiest = Counter(int(moment * 10) for moment in arrivals).most_common(1)[0][1]
    assert busiest < 60, "in a tenth of a second"
