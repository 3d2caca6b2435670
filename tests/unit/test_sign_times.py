# SPDX-License-Identifier: Apache-2.0
"""Times of signatures out of classes, whatever an agent counts."""

import pytest

from privyseal.hub.sign_times import cumulated, quantile_seconds
from privyseal.wire.job_names import item_ranges
from privyseal.wire.link import SIGN_BOUNDS_SECONDS


def test_counts_add_up_over_all_bounds() -> None:
    assert cumulated(()) == (0,) * 13
    assert cumulated((1, 0, 2)) == (1, 1, *(3,) * 11)
    assert cumulated((*(0,) * 12, 5))[-2:] == (0, 5)
    assert cumulated((-4, 1)) == (0, *(1,) * 12)
    assert len(SIGN_BOUNDS_SECONDS) == 12


@pytest.mark.parametrize(
    ("counts", "share", "bound"),
    [
        ((), 0.5, None),
        ((0, 0, 0), 0.5, None),
        ((1,), 0.5, 0.005),
        ((1, 1), 0.5, 0.005),
        ((1, 2), 0.5, 0.01),
        ((99, 1), 0.99, 0.005),
        ((98, 2), 0.99, 0.01),
        ((*(0,) * 12, 1), 0.5, None),
    ],
)
def test_a_quantile_is_the_bound_of_its_class(counts: tuple[int, ...], share: float, bound: float | None) -> None:
    assert quantile_seconds(counts, share) == bound


@pytest.mark.parametrize(
    ("items", "text"),
    [((), ""), ((0,), "0"), ((0, 1), "0-1"), ((3, 1, 2, 9), "1-3,9"), ((0, 2, 4), "0,2,4"), (range(10_000), "0-9999")],
)
def test_items_are_named_as_ranges(items: tuple[int, ...], text: str) -> None:
    assert item_ranges(items) == text
