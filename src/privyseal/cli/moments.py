# SPDX-License-Identifier: Apache-2.0
"""Moments as people write and read them, and as the log counts them: milliseconds since the epoch."""

import datetime as dt

from privyseal.errors import ConfigError

__all__ = ["clock_text", "duration_text", "exact_moment", "moment_text", "parse_moment"]

_DAY = dt.timedelta(days=1)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def parse_moment(text: str, *, whole_day: bool = False) -> int | None:
    """A day or moment in ISO 8601, UTC unless it says otherwise; None for an empty text.

    Args:
        text: `2026-03-01`, `2026-03-01T12:30`, `2026-03-01T12:30:00+02:00`.
        whole_day: A day means its end, not its beginning.

    Raises:
        ConfigError: `usage.moment`.
    """
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        if whole_day and _is_day(text):
            moment += _DAY
        return (moment - _EPOCH) // dt.timedelta(milliseconds=1)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            "usage.moment", f"{text!r} is neither a day nor a moment", hint="write 2026-03-01 or 2026-03-01T12:30:00Z"
        ) from error


def _is_day(text: str) -> bool:
    try:
        dt.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def moment_text(milliseconds: int) -> str:
    """A moment for people, in UTC; a log may hold times that no calendar reaches."""
    return exact_moment(milliseconds).partition(".")[0].replace("T", " ")


def exact_moment(milliseconds: int) -> str:
    """A moment for programs (ISO 8601, UTC)."""
    try:
        moment = _EPOCH + dt.timedelta(milliseconds=milliseconds)
    except OverflowError:
        return f"{milliseconds} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock_text(milliseconds: int, now_ms: int) -> str:
    """The same, without the day if that is today."""
    text = moment_text(milliseconds)
    day, _, time = text.partition(" ")
    return f"{time or day}Z" if day == moment_text(now_ms).partition(" ")[0] else f"{text}Z"


def duration_text(seconds: float) -> str:
    """How long something takes, for people."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 120:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
