# SPDX-License-Identifier: Apache-2.0
"""Which TSA is asked next: health, budget, circuit breaker, and when a slow answer deserves a second question.

No effects: a `Tsa` is a value, what happens to it gives another one, and the time is told.

Health is forgotten: a bad mark loses half its weight each minute, so that the operator's order returns by itself. The
breaker opens after three failures in a row, and lets one question through after a pause that doubles each time.
"""

from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Tsa", "answered", "asked", "failed", "may_ask", "outrun", "ranked", "state_of", "until_next_ms"]

_MINUTE_MS: Final = 60_000
_HALF_LIFE_MS: Final = 60_000.0
_FAILURE_MARK: Final = 1.0
_SLOW_MARK: Final = 0.3
_BREAK_AFTER: Final = 3
_PAUSE_MS: Final = 30_000
_MAX_DOUBLINGS: Final = 5
_UNDER_WAY_AT_MOST: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tsa:
    """A time-stamping authority and what is known of it. Times are milliseconds of a clock that never goes back.

    Attributes:
        per_minute: Budget; 0 for none.
        marks: Weight of its bad marks at `marked_ms`.
        failures: How many in a row.
        open_until_ms: The circuit breaker is open until then; 0 if it is closed.
        probing: The one question of a half-open breaker is under way.
        resting_until_ms: It asked to be left alone until then.
        asked_ms: When it was asked within the last minute; kept only with a budget.
        problem: Its last failure; empty after a good answer.
    """

    url: str
    per_minute: int = 0
    marks: float = 0.0
    marked_ms: int = 0
    failures: int = 0
    open_until_ms: int = 0
    probing: bool = False
    resting_until_ms: int = 0
    asked_ms: tuple[int, ...] = ()
    problem: str = ""


def ranked(tsas: tuple[Tsa, ...], now_ms: int) -> tuple[Tsa, ...]:
    """Those that may be asked now, the healthiest first; among equals the given order holds."""
    free = [(round(_marks(tsa, now_ms), 1), place, tsa) for place, tsa in enumerate(tsas) if may_ask(tsa, now_ms)]
    return tuple(tsa for _, _, tsa in sorted(free, key=lambda one: one[:2]))


def may_ask(tsa: Tsa, now_ms: int) -> bool:
    """Whether budget, breaker and its own wish allow a question."""
    return state_of(tsa, now_ms) == "ready" and not tsa.probing


def state_of(tsa: Tsa, now_ms: int) -> str:
    """`open` while the breaker is; `resting` while budget or its own wish forbids a question; else `ready`."""
    if now_ms < tsa.open_until_ms:
        return "open"
    spent = tsa.per_minute and len(_recent(tsa, now_ms)) >= tsa.per_minute
    return "resting" if spent or now_ms < tsa.resting_until_ms else "ready"


def asked(tsa: Tsa, now_ms: int) -> Tsa:
    """A question goes out."""
    recent = (*_recent(tsa, now_ms), now_ms) if tsa.per_minute else ()
    return replace(tsa, asked_ms=recent, probing=tsa.open_until_ms > 0)


def answered(tsa: Tsa, now_ms: int) -> Tsa:
    """A good answer came."""
    marks = _marks(tsa, now_ms) / 2
    return replace(tsa, marks=marks, marked_ms=now_ms, failures=0, open_until_ms=0, probing=False, problem="")


def failed(tsa: Tsa, now_ms: int, problem: str, patience_ms: int = 0) -> Tsa:
    """It failed; `patience_ms` is for how long it asked to be left alone."""
    failures = tsa.failures + 1
    open_until_ms = 0
    if failures >= _BREAK_AFTER:
        open_until_ms = now_ms + _PAUSE_MS * 2 ** min(failures - _BREAK_AFTER, _MAX_DOUBLINGS)
    return replace(
        tsa,
        marks=_marks(tsa, now_ms) + _FAILURE_MARK,
        marked_ms=now_ms,
        failures=failures,
        open_until_ms=open_until_ms,
        probing=False,
        resting_until_ms=max(tsa.resting_until_ms, now_ms + patience_ms),
        problem=problem,
    )


def outrun(tsa: Tsa, now_ms: int) -> Tsa:
    """Another one answered first, and this one is not waited for any more."""
    return replace(tsa, marks=_marks(tsa, now_ms) + _SLOW_MARK, marked_ms=now_ms, probing=False)


def until_next_ms(under_way: int, waited_ms: int, hedge_ms: int) -> int | None:
    """When the next TSA is asked for the same timestamp: 0 for now, None if nobody is before an answer or failure.

    Args:
        under_way: How many are asked and have not answered.
        waited_ms: Since the last one was asked.
        hedge_ms: After which time an answer is slow.
    """
    if under_way == 0:
        return 0
    return max(0, hedge_ms - waited_ms) if under_way < _UNDER_WAY_AT_MOST else None


def _marks(tsa: Tsa, now_ms: int) -> float:
    """What is left of its bad marks."""
    return float(tsa.marks * 0.5 ** ((now_ms - tsa.marked_ms) / _HALF_LIFE_MS))


def _recent(tsa: Tsa, now_ms: int) -> tuple[int, ...]:
    return tuple(moment for moment in tsa.asked_ms if moment > now_ms - _MINUTE_MS)
