# SPDX-License-Identifier: Apache-2.0
"""Looks at a token become intervals of custody: one for each state, closed when it changes or after an hour. Pure."""

from dataclasses import replace
from typing import Final

import msgspec

from privyseal.agent.custody_spans import Interval, Look, Reason, judge

__all__ = ["Timeline"]

#: The log hears of a state that lasts this often.
_LONGEST_MS: Final = 3_600_000
#: What is unproven stays so at least this long: whoever comes and goes all the time cannot fill the log.
_LEAST_UNPROVEN_MS: Final = 60_000


class Timeline:
    """The newest interval of one token's custody.

    Args:
        interval: The one that was open when the agent last ran; None if it never did.
        ended: How that run ended.
    """

    def __init__(self, interval: Interval | None = None, ended: Reason = Reason.CRASHED) -> None:
        self._interval = interval
        self._ended: Final = ended
        self._last: Look | None = None

    @property
    def interval(self) -> Interval | None:
        """The one that is open: up to the last look."""
        return self._interval

    def saw(self, look: Look) -> tuple[Interval, ...]:
        """Take a look.

        Returns:
            The intervals that it closes; one of no length says nothing.
        """
        before, self._last = self._last, look
        if before is not None:
            times = (before.moment.wall_ms, look.moment.wall_ms)
            reason = judge(before, look)
        elif self._interval is not None:
            times = (self._interval.until_ms, look.moment.wall_ms)
            reason = self._ended
        else:
            return ()
        return self._add(Interval(since_ms=min(times), until_ms=max(times), reason=reason or ""))

    def interrupt(self) -> None:
        """The token was away since the last look, however short that was."""
        if self._last is not None:
            self._last = replace(self._last, present=False)

    def cut(self) -> tuple[Interval, ...]:
        """Close what is open; the same custody goes on."""
        interval = self._interval
        if interval is None:
            return ()
        self._interval = msgspec.structs.replace(interval, since_ms=interval.until_ms)
        return (interval,)

    def close(self) -> tuple[Interval, ...]:
        """End with the last look; another token's custody begins."""
        interval, self._interval, self._last = self._interval, None, None
        return () if interval is None else (interval,)

    def _add(self, span: Interval) -> tuple[Interval, ...]:
        interval = self._interval
        closed: tuple[Interval, ...] = ()
        if interval is not None and _goes_on(interval, span):
            span = msgspec.structs.replace(interval, until_ms=max(interval.until_ms, span.until_ms))
        elif interval is not None:
            closed = (interval,)
        self._interval = span
        return closed + (self.cut() if span.until_ms - span.since_ms >= _LONGEST_MS else ())


def _goes_on(interval: Interval, span: Interval) -> bool:
    """Whether a span belongs into the interval before it."""
    is_settling = bool(interval.reason) and interval.until_ms - interval.since_ms < _LEAST_UNPROVEN_MS
    return interval.reason == span.reason or is_settling
