# SPDX-License-Identifier: Apache-2.0
"""A request makes sense for as long as somebody waits for it, and for as long as is usual for its class."""

import pytest

from privyseal.client.requests import life_seconds
from privyseal.client.time_limit import TimeLimit

HOUR = 3600.0
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("priority", "limit", "longest", "life"),
    [
        ("normal", TimeLimit(seconds=300), DAY, HOUR),
        ("release", TimeLimit(seconds=0), DAY, HOUR),
        ("nightly", TimeLimit(seconds=0), DAY, 12 * HOUR),
        ("nightly", TimeLimit(seconds=60, in_all=True), DAY, 12 * HOUR),
        ("normal", TimeLimit(seconds=3 * HOUR, in_all=True), DAY, 3 * HOUR),
        ("nightly", TimeLimit(seconds=20 * HOUR, in_all=True), DAY, 20 * HOUR),
        ("normal", TimeLimit(seconds=2 * HOUR), DAY, 2 * HOUR),
        ("nightly", TimeLimit(seconds=300), 2 * HOUR, 2 * HOUR),
        ("normal", TimeLimit(seconds=7 * DAY), DAY, DAY),
        ("normal", TimeLimit(seconds=60, in_all=True), HOUR / 2, HOUR / 2),
        ("normal", TimeLimit(seconds=2 * DAY, in_all=True), DAY, 2 * DAY),
        ("normal", TimeLimit(seconds=1e300, in_all=True), DAY, 366 * DAY),
    ],
    ids=[
        "usual",
        "handed in",
        "until the morning",
        "class beyond the time that is waited",
        "timeout",
        "timeout beyond the class",
        "patience",
        "hub's bound before the class",
        "hub's bound before patience",
        "hub's bound before the hour",
        "timeout beyond the hub's bound is for the hub to refuse",
        "no number of people",
    ],
)
def test_how_long_a_new_request_makes_sense(priority: str, limit: TimeLimit, longest: float, life: float) -> None:
    assert life_seconds(priority, limit, longest) == life
