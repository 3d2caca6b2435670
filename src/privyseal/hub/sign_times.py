# SPDX-License-Identifier: Apache-2.0
"""Times of signatures out of the classes in which agents count them (`wire.link.SIGN_BOUNDS_SECONDS`). Pure."""

from itertools import accumulate

from privyseal.wire.link import SIGN_BOUNDS_SECONDS

__all__ = ["cumulated", "quantile_seconds"]


def cumulated(counts: tuple[int, ...]) -> tuple[int, ...]:
    """For each bound how many signatures stayed within it, and at the end how many there were."""
    missing = len(SIGN_BOUNDS_SECONDS) + 1 - len(counts)
    return tuple(accumulate((*(max(0, count) for count in counts), *(0 for _ in range(missing)))))


def quantile_seconds(counts: tuple[int, ...], share: float) -> float | None:
    """The bound that this share of the signatures stayed within; None if there were none, or they took longer."""
    *within, total = cumulated(counts)
    if total == 0:
        return None
    return next((bound for bound, n in zip(SIGN_BOUNDS_SECONDS, within, strict=True) if n >= share * total), None)
