# SPDX-License-Identifier: Apache-2.0
"""What agents told of one token's custody, put together: proven only where somebody says so and nobody contradicts."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from privyseal.tlog.entry import Custody

__all__ = ["PROVEN", "UNTOLD", "Stretch", "coverage", "timeline"]

PROVEN: Final = "proven"
UNPROVEN: Final = "unproven"
#: The reason where no agent told anything: it was off, or its word has not come yet.
UNTOLD: Final = "untold"

#: An agent that says so does not have the token: another one may.
_ELSEWHERE: Final = frozenset({"absent", "stopped", "crashed"})
#: An agent's clock may be so much ahead of the hub's; what it tells of a later time is not told yet.
_AHEAD_MS: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A stretch of time of one state, in milliseconds since the epoch.

    Attributes:
        reasons: Why it is unproven, in alphabetical order; empty if it is proven.
    """

    since_ms: int
    until_ms: int
    reasons: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """`proven` or `unproven`."""
        return UNPROVEN if self.reasons else PROVEN

    @property
    def length_ms(self) -> int:
        """How long it is."""
        return self.until_ms - self.since_ms


def timeline(told: Iterable[Custody], since_ms: int, until_ms: int) -> tuple[Stretch, ...]:
    """The whole time from `since_ms` to `until_ms`, without a hole, as stretches whose states differ."""
    claims = [_Claim.of(entry) for entry in told]
    claims = [claim for claim in claims if claim.since_ms < until_ms and since_ms < claim.until_ms]
    edges = {since_ms, until_ms}
    for claim in claims:
        edges |= {max(since_ms, claim.since_ms), min(until_ms, claim.until_ms)}
    return tuple(_merged(_stretches(sorted(claims, key=lambda claim: claim.since_ms), sorted(edges))))


def coverage(stretches: Iterable[Stretch]) -> float:
    """How much of the time is proven, in percent; 0 of no time at all."""
    proven = whole = 0
    for stretch in stretches:
        whole += stretch.length_ms
        proven += 0 if stretch.reasons else stretch.length_ms
    return 100 * proven / whole if whole else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    agent: str
    since_ms: int
    until_ms: int
    reason: str

    @classmethod
    def of(cls, entry: Custody) -> "_Claim":
        reason = "" if entry.state == PROVEN and not entry.reason else entry.reason or UNPROVEN
        until_ms = min(entry.until, entry.ts + _AHEAD_MS)
        return cls(agent=entry.agent, since_ms=entry.since, until_ms=until_ms, reason=reason)


def _stretches(claims: list[_Claim], edges: list[int]) -> Iterator[Stretch]:
    """One stretch between each two edges; nothing changes within it."""
    position = 0
    running: list[_Claim] = []
    for since_ms, until_ms in itertools.pairwise(edges):
        while position < len(claims) and claims[position].since_ms <= since_ms:
            running.append(claims[position])
            position += 1
        running = [claim for claim in running if claim.until_ms > since_ms]
        yield Stretch(since_ms=since_ms, until_ms=until_ms, reasons=_reasons(running))


def _reasons(claims: list[_Claim]) -> tuple[str, ...]:
    """Why a moment is unproven of which these claims speak."""
    holders = {claim.agent for claim in claims if not claim.reason}
    if not claims:
        return (UNTOLD,)
    against = {
        claim.reason
        for claim in claims
        if claim.reason and not (holders - {claim.agent} and claim.reason in _ELSEWHERE)
    }
    return tuple(sorted(against))


def _merged(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    for reasons, group in itertools.groupby(stretches, key=lambda one: one.reasons):
        alike = tuple(group)
        yield Stretch(since_ms=alike[0].since_ms, until_ms=alike[-1].until_ms, reasons=reasons)
