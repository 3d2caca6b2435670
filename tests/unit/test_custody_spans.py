# SPDX-License-Identifier: Apache-2.0
"""A span is proven only if everything speaks for it; each thing that does not has its own word."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.agent.custody_spans import MAX_GAP_MS, Interval, Look, Moment, Reason, judge
from privyseal.agent.custody_timeline import Timeline

START = 1_700_000_000_000
HOUR = 3_600_000
GOOD = Look(
    moment=Moment(wall_ms=START, awake_ms=1_000, boot_ms=5_000),
    present=True,
    hardware=True,
    healthy=True,
    holder=1,
    others=0,
    card_events=1,
)


def later(look: Look, ms: int, *, asleep_ms: int = 0, set_ms: int = 0, **changes: Any) -> Look:
    """The same after so long, awake and asleep; the clock may have been set meanwhile."""
    now = look.moment
    moment = Moment(
        wall_ms=now.wall_ms + ms + asleep_ms + set_ms,
        awake_ms=now.awake_ms + ms,
        boot_ms=now.boot_ms + ms + asleep_ms,
    )
    return replace(look, moment=moment, **changes)


def test_a_quiet_span_is_proven() -> None:
    assert judge(GOOD, later(GOOD, 5_000)) is None
    assert judge(GOOD, later(GOOD, MAX_GAP_MS)) is None


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (later(GOOD, 5_000, asleep_ms=60_000), Reason.SUSPENDED),
        (later(GOOD, 5_000, asleep_ms=3_000), Reason.SUSPENDED),
        (later(GOOD, 5_000, set_ms=60_000), Reason.CLOCK),
        (later(GOOD, 5_000, set_ms=-60_000), Reason.CLOCK),
        (later(GOOD, MAX_GAP_MS + 1), Reason.GAP),
        (later(GOOD, 5_000, present=False), Reason.ABSENT),
        (later(GOOD, 5_000, healthy=False), Reason.UNHEALTHY),
        (later(GOOD, 5_000, holder=2), Reason.WORKER),
        (later(GOOD, 5_000, card_events=3), Reason.REINSERTED),
        (later(GOOD, 5_000, card_events=None), Reason.UNWATCHED),
        (later(GOOD, 5_000, others=None), Reason.UNWATCHED),
        (later(GOOD, 5_000, others=1), Reason.SHARED),
        (later(GOOD, 5_000, moved=Reason.NETWORK), Reason.NETWORK),
        (later(GOOD, 5_000, moved=Reason.USB_PORT, others=None), Reason.USB_PORT),
        (later(GOOD, 5_000, hardware=False), Reason.SOFTWARE),
    ],
)
def test_each_thing_that_speaks_against_it_is_named(after: Look, reason: Reason) -> None:
    assert judge(GOOD, after) is reason


@pytest.mark.parametrize(
    "changes", [{"present": False}, {"healthy": False}, {"others": 2}, {"hardware": False}, {"moved": Reason.USB_PORT}]
)
def test_what_was_wrong_at_the_beginning_counts_too(changes: dict[str, Any]) -> None:
    assert judge(replace(GOOD, **changes), later(GOOD, 5_000)) is not None


def run(*looks: Look) -> list[tuple[int, int, str]]:
    """All intervals of a timeline, in milliseconds after START."""
    timeline = Timeline()
    closed = [interval for look in looks for interval in timeline.saw(look)]
    closed += timeline.cut()
    return [(one.since_ms - START, one.until_ms - START, one.reason) for one in closed if one.since_ms < one.until_ms]


def chain(*steps: dict[str, Any]) -> list[Look]:
    """Looks five seconds apart, each with its changes; they last."""
    looks = [GOOD]
    for step in steps:
        looks.append(later(looks[-1], 5_000, **step))
    return looks


def test_like_spans_are_one_interval() -> None:
    assert run(*chain(*[{}] * 10)) == [(0, 50_000, "")]


def test_a_stranger_makes_an_interval_of_its_own_from_the_look_before() -> None:
    quiet: list[dict[str, Any]] = [{}] * 20
    looks = chain(*quiet[:3], {"others": 1}, {"others": 0}, *quiet)

    assert run(*looks) == [(0, 15_000, ""), (15_000, 75_000, "shared"), (75_000, 125_000, "")]


def test_the_log_hears_of_a_lasting_state_each_hour() -> None:
    intervals = run(*chain(*[{}] * (2 * HOUR // 5_000 + 3)))

    assert intervals == [(0, HOUR, ""), (HOUR, 2 * HOUR, ""), (2 * HOUR, 2 * HOUR + 15_000, "")]


@given(st.lists(st.sampled_from([{"others": 0}, {"others": 1}, {"others": None}, {"holder": 2}]), max_size=400))
def test_whoever_comes_and_goes_cannot_fill_the_log(steps: list[dict[str, Any]]) -> None:
    looks = chain(*steps)
    intervals = run(*looks)

    minutes = len(steps) * 5_000 / 60_000
    assert len(intervals) <= 2 * minutes + 2
    if steps:
        assert intervals[0][0] == 0
        assert intervals[-1][1] == len(steps) * 5_000
    assert [one[0] for one in intervals[1:]] == [one[1] for one in intervals[:-1]], "without a hole"


@given(st.lists(st.sampled_from([{"others": 0}, {"others": 1}, {"holder": 2}, {"present": False}, {}]), max_size=60))
def test_nothing_unproven_is_told_as_proven(steps: list[dict[str, Any]]) -> None:
    looks = chain(*steps)
    intervals = run(*looks)

    for before, after in itertools.pairwise(looks):
        if judge(before, after) is not None:
            since, until = before.moment.wall_ms - START, after.moment.wall_ms - START
            assert not [one for one in intervals if not one[2] and one[0] < until and since < one[1]]


def test_a_clock_that_was_set_back_leaves_an_unproven_span_both_ways() -> None:
    first = later(GOOD, 5_000)
    back = later(first, 5_000, set_ms=-100_000)
    looks = [GOOD, first, back, *(later(back, 5_000 * n) for n in range(1, 30))]

    intervals = run(*looks)

    assert intervals[:2] == [(0, 5_000, ""), (-90_000, 5_000, "clock")]
    assert intervals[2][2] == ""


@pytest.mark.parametrize("ended", [Reason.STOPPED, Reason.CRASHED])
def test_time_without_an_agent_is_a_gap_of_its_own(ended: Reason) -> None:
    timeline = Timeline(Interval(since_ms=START - 90_000, until_ms=START - 70_000, reason=""), ended)

    assert timeline.saw(GOOD) == (Interval(since_ms=START - 90_000, until_ms=START - 70_000, reason=""),)
    assert timeline.interval == Interval(since_ms=START - 70_000, until_ms=START, reason=str(ended))


def test_a_token_that_was_away_for_less_than_a_look_was_away() -> None:
    timeline = Timeline()
    timeline.saw(GOOD)
    timeline.interrupt()
    timeline.saw(later(GOOD, 1_000))

    assert timeline.interval is not None
    assert timeline.interval.reason == "absent"
