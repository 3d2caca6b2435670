# SPDX-License-Identifier: Apache-2.0
"""The recovery ladder (DESIGN §7) as a decision: which rung after which error. Pure; `recovery.py` takes the steps."""

from collections import deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from privyseal.errors import PrivysealError, TokenError
from privyseal.tokens.remedies import REMEDIES, Remedy, may_have_signed, remedy_for

__all__ = [
    "BOUNDS",
    "OF_HOST",
    "OF_TOKEN",
    "Bound",
    "Climb",
    "Rung",
    "Tally",
    "is_about_pin",
    "is_unable",
    "is_unknown",
    "span_for",
]


class Rung(Enum):
    """One step, by the name that entries and metrics have; each later one disturbs more."""

    SESSION = "session"  #: a fresh session
    MODULE = "module"  #: C_Finalize, C_Initialize
    WORKER = "worker"  #: the worker process is killed, another one started
    USB_RESET = "usb-reset"
    PORT_POWER = "port-power"
    PCSCD = "pcscd"
    REBOOT = "reboot"


_ORDER: Final = tuple(Rung)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """At most so many steps of a rung in so many seconds."""

    count: int
    seconds: float


BOUNDS: Final[Mapping[Rung, Bound]] = {
    Rung.SESSION: Bound(count=120, seconds=60.0),
    Rung.MODULE: Bound(count=30, seconds=60.0),
    Rung.WORKER: Bound(count=20, seconds=60.0),
    Rung.USB_RESET: Bound(count=3, seconds=600.0),
    Rung.PORT_POWER: Bound(count=2, seconds=1800.0),
    Rung.PCSCD: Bound(count=3, seconds=1800.0),
    Rung.REBOOT: Bound(count=1, seconds=86_400.0),
}

#: Steps that the workers of a token have in common, and those that all tokens of a host have.
OF_TOKEN: Final = frozenset({Rung.USB_RESET, Rung.PORT_POWER})
OF_HOST: Final = frozenset({Rung.PCSCD, Rung.REBOOT})

_FIRST: Final[Mapping[Remedy, Rung]] = {
    Remedy.RETRY: Rung.SESSION,
    Remedy.NEW_SESSION: Rung.SESSION,
    Remedy.NEW_LOGIN: Rung.SESSION,
    Remedy.NEW_WORKER: Rung.WORKER,
}

#: Errors of the supervisor and the driver themselves, which no return value stands behind.
_FIRST_BY_CODE: Final[Mapping[str, Rung]] = {
    "token.timeout": Rung.WORKER,
    "token.crashed": Rung.WORKER,
    "token.protocol": Rung.WORKER,
    "token.not_found": Rung.WORKER,
    "token.failed": Rung.SESSION,
}
_PIN_CODES: Final = frozenset(
    {
        "token.pin_incorrect",
        "token.pin_expired",
        "token.pin_locked",
        "token.pin_blocked",
        "token.pin_missing",
        "token.pin_file",
        "token.pin_credential",
        "token.pin_keyring",
        "token.pin_journal",
    }
)
#: What else lies with the token and not with what was asked of it.
_UNABLE_CODES: Final = _PIN_CODES | {
    "token.ambiguous",
    "token.closed",
    "token.crashed",
    "token.key_not_found",
    "token.module",
    "token.module_architecture",
    "token.not_found",
    "token.not_ready",
    "token.other_serial",
    "token.pcsc",
    "token.pcscd",
    "token.protocol",
    "token.timeout",
}


def is_about_pin(error: PrivysealError) -> bool:
    """Whether a person must act before the token may be logged in again."""
    return error.code in _PIN_CODES


def is_unknown(error: PrivysealError) -> bool:
    """Whether the token may have signed although no signature came."""
    if not isinstance(error, TokenError) or not error.begun:
        return False
    return error.ckr is None or may_have_signed(error.ckr)


def is_unable(error: PrivysealError) -> bool:
    """Whether the token surely has not signed, for a reason of its own: another one may, or this one later.

    What a token would refuse each time (a mechanism, a length) is a reason of the request.
    """
    if not isinstance(error, TokenError) or is_unknown(error):
        return False
    if error.ckr is None:
        return error.code in _UNABLE_CODES
    return remedy_for(error.ckr, in_sign=error.begun) is not Remedy.GIVE_UP


def span_for(error: PrivysealError) -> tuple[Rung, Rung] | None:
    """The first and the last rung that may help against an error; None if none can.

    A return value that no table has gets one new worker, and no more.
    """
    if not isinstance(error, TokenError) or is_about_pin(error):
        return None
    if error.ckr is None:
        first = _FIRST_BY_CODE.get(error.code)
        # No reboot for what a person has taken out.
        last = Rung.PCSCD if error.code == "token.not_found" else Rung.REBOOT
        return None if first is None else (first, last)
    remedy = remedy_for(error.ckr, in_sign=error.begun)
    if remedy not in _FIRST:
        return None
    return _FIRST[remedy], Rung.REBOOT if error.ckr in REMEDIES else Rung.WORKER


@dataclass(slots=True)
class Tally:
    """When which steps were taken, so that none is taken too often: by one worker, or by all that share its steps."""

    bounds: Mapping[Rung, Bound] = field(default_factory=lambda: BOUNDS)
    _taken_s: dict[Rung, deque[float]] = field(default_factory=dict)

    def sharing(self, rungs: Iterable[Rung]) -> "Tally":
        """One of its own that counts these steps together with this one, and with all others made so."""
        shared = {rung: self._taken_s.setdefault(rung, deque()) for rung in rungs}
        return Tally(self.bounds, shared)

    def allows(self, rung: Rung, now_s: float) -> bool:
        """Whether one more step of this rung keeps the bound."""
        bound, taken_s = self.bounds[rung], self._taken_s.setdefault(rung, deque())
        while taken_s and taken_s[0] <= now_s - bound.seconds:
            taken_s.popleft()
        return len(taken_s) < bound.count

    def take(self, rung: Rung, now_s: float) -> None:
        """A step is taken now."""
        self._taken_s.setdefault(rung, deque()).append(now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """The way up during one call: each rung once, and never down again.

    Attributes:
        possible: The rungs that this token has.
        climbed: The last one that was taken; None at the foot.
    """

    possible: AbstractSet[Rung]
    climbed: Rung | None = None

    def next(self, error: PrivysealError, tally: Tally, now_s: float) -> Rung | None:
        """The rung to take after this error; None at the top."""
        span = span_for(error)
        if span is None:
            return None
        above = 0 if self.climbed is None else _ORDER.index(self.climbed) + 1
        first, last = max(above, _ORDER.index(span[0])), _ORDER.index(span[1])
        for rung in _ORDER[first : last + 1]:
            if rung in self.possible and tally.allows(rung, now_s):
                return rung
        return None
