# SPDX-License-Identifier: Apache-2.0
"""How long a command goes on while it gets nowhere, and how its tries are spread over time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Deadline", "TimeLimit", "duration_text", "pause_seconds"]

_FIRST_SECONDS: Final = 0.5
_LONGEST_SECONDS: Final = 30.0
#: With less than this left, another try would come at once after the last one.
_TOO_LITTLE_SECONDS: Final = 0.1


def pause_seconds(attempt: int, fraction: float, at_least: float = 0.0) -> float:
    """The pause before another try: anything up to a bound that doubles ("full jitter").

    Clients that lost the same hub at the same moment come back at different ones. A hub that asks for patience is
    given it, and as much again to be spread over: else all that it asked would come back together.

    Args:
        attempt: How many pauses were made before: 0, 1, 2 …
        fraction: A random number from 0 to 1.
        at_least: What the hub asked for (`Retry-After`), in seconds.
    """
    bound = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(attempt, 16))
    return at_least + fraction * max(bound, at_least)


def duration_text(seconds: float) -> str:
    """A time for people: `40 s`, `12 min`, `3 h`."""
    for bound, unit, name in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < bound:
            return f"{max(1, round(seconds / unit))} {name}"
    return f"{round(seconds / 3600)} h"


class Deadline:
    """Runs while a command waits: see `TimeLimit.begin`."""

    def __init__(self, limit: "TimeLimit") -> None:
        self.limit: Final = limit
        self._began_s = limit.clock()
        self._ends_s = self._began_s + limit.seconds

    @property
    def left_seconds(self) -> float:
        """Until it is over; never negative."""
        return max(0.0, self._ends_s - self.limit.clock())

    @property
    def waited_seconds(self) -> float:
        """Since the first question."""
        return self.limit.clock() - self._began_s

    def is_over(self, *, came: bool) -> bool:
        """Whether to stop, after an answer that brought something new, or nothing."""
        if came and not self.limit.in_all:
            self._ends_s = self.limit.clock() + self.limit.seconds
            return False
        return self.left_seconds <= 0

    def next_pause(self, attempt: int, fraction: float, at_least: float) -> float | None:
        """The pause before another try in seconds; None if too little is left for one."""
        left = self.left_seconds
        if left - at_least < _TOO_LITTLE_SECONDS:
            return None
        pause = pause_seconds(attempt, fraction, at_least)
        return pause if pause < left else at_least + fraction * (left - at_least)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimit:
    """What a command is ready to wait.

    Attributes:
        seconds: How long nothing may come of it; 0 to ask once.
        in_all: They are the bound for all of it together, also while signatures come.
        notice: Told in words why it tries again.
        clock: Monotonic, seconds.
    """

    seconds: float
    in_all: bool = False
    notice: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic

    def begin(self) -> Deadline:
        """From now on it runs."""
        return Deadline(self)
