# SPDX-License-Identifier: Apache-2.0
"""How hub and agent name a job in their own logs, so that a person can follow it from one to the other."""

from collections.abc import Iterable
from itertools import groupby

__all__ = ["item_ranges", "short_request"]

_SHOWN_DIGITS = 16


def short_request(request_id: str) -> str:
    """The beginning of a request's id: as many hex digits as the client shows."""
    return request_id[:_SHOWN_DIGITS]


def item_ranges(items: Iterable[int]) -> str:
    """Items of a request, runs of them as ranges: `0`, `0-63`, `0-3,7`."""
    runs = []
    for _, run in groupby(enumerate(sorted(items)), lambda placed: placed[1] - placed[0]):
        numbers = [item for _, item in run]
        runs.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(runs)
