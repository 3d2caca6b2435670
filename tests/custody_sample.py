# SPDX-License-Identifier: Apache-2.0
"""A log of one day of a key's custody, such as docs/custody.md shows."""

import datetime as dt
from collections.abc import Callable
from typing import Any

from log_samples import GrownLog, genesis, intent_at, result_of, sha
from privyseal.tlog.entry import AgentEntry, Custody, Entry, Freeze, KeyEntry, Reconcile

__all__ = ["KEY", "custody_day"]

KEY = sha(3)
_AGENT, _TOKEN = sha(1), "000612345678"
_DAY = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
_HOURS_MS, _MINUTES_MS = 3_600_000, 60_000


def _at(hours: int, minutes: int = 0) -> int:
    return int(_DAY.timestamp()) * 1_000 + hours * _HOURS_MS + minutes * _MINUTES_MS


class _Day:
    def __init__(self) -> None:
        self.log = GrownLog()
        self.seq = 0
        self.log.commit(genesis())

    def tell(self, make: Callable[..., AgentEntry], at: int, **fields: Any) -> None:
        self.seq += 1
        self.commit(make(ts=at, agent=_AGENT, seq=self.seq, at=at, token=_TOKEN, key=KEY, **fields))

    def commit(self, *entries: Entry) -> None:
        self.log.commit(*entries)

    def custody(self, since: int, until: int, reason: str = "") -> None:
        state = "unproven" if reason else "proven"
        self.tell(Custody, until, since=since, until=until, state=state, reason=reason)

    def sign(self, at: int, count: int) -> None:
        for _ in range(count):
            index = len(self.log.entries)
            intent = intent_at(at, index, profile="acme-ev")
            self.commit(intent, result_of(at, index, intent))


def custody_day(*, frozen: bool) -> GrownLog:
    """From eight to eight: two signatures, a stranger at noon, the token unplugged at four.

    Args:
        frozen: The counter does not match in the end, as somebody has used the key meanwhile.
    """
    day = _Day()
    day.commit(_announced(_at(8)))
    day.tell(Reconcile, _at(8), enrolled=1840, now=1840, results=0, unknowns=0, verdict="match")
    for hour in range(8, 12):
        day.custody(_at(hour), _at(hour + 1))
    day.custody(_at(12), _at(12, 1), "shared")
    day.sign(_at(13), 2)
    day.custody(_at(12, 1), _at(16))
    day.custody(_at(16), _at(16, 25), "absent")
    now = 1845 if frozen else 1842
    verdict = "mismatch" if frozen else "match"
    day.tell(Reconcile, _at(16, 25), enrolled=1840, now=now, results=2, unknowns=0, verdict=verdict)
    if frozen:
        day.tell(Freeze, _at(16, 25), frozen=True, code="token.counter_mismatch")
    day.custody(_at(16, 25), _at(19, 30))
    day.commit(_announced(_at(20), certificate=sha(10)))
    return day.log


def _announced(at: int, certificate: str = sha(9)) -> KeyEntry:
    return KeyEntry(
        ts=at,
        profile="acme-ev",
        agent=_AGENT,
        key=KEY,
        certificate=certificate,
        level="traced",
        opaque=(),
        token=_TOKEN,
        hardware=True,
        witness="off",
        test=False,
    )
