# SPDX-License-Identifier: Apache-2.0
"""A key's signature counter held against what this agent signed with it. Pure: counters and journal are arguments.

`results <= now - enrolled <= results + unknowns`: the token has counted at least what it gave us, and at most that and
what nobody knows the end of. What lies outside was signed by somebody else, or the counter is another one.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from privyseal.ports.journal import JournalUse, OutcomeState
from privyseal.tlog.entry import Intent, parse_entry

__all__ = ["MATCH", "MISMATCH", "Counted", "count_uses", "enrol", "is_of", "verdict"]

MATCH: Final = "match"
MISMATCH: Final = "mismatch"


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What has been counted of one counter.

    Attributes:
        enrolled: The counter where the counting began.
        through: Operations of the journal up to this number were looked at.
        results: Those among them, and after the beginning, that ended with a signature.
        open: Numbers of those without a known end: under way, or unknown for ever.
        told_ms: When a reconciliation was told last, in milliseconds since the epoch.
    """

    enrolled: int
    through: int
    results: int = 0
    open: tuple[int, ...] = ()
    told_ms: int = 0

    @property
    def unknowns(self) -> int:
        """Operations of which nobody knows whether the token carried them out."""
        return len(self.open)


def enrol(count: int, last_use: int, recent: Iterable[JournalUse], keys: frozenset[str]) -> Counted:
    """Begin to count, while the token is at rest.

    Args:
        count: The counter now.
        last_use: The number of the journal's last operation.
        recent: Those before it that may yet be carried out: what was prepared is in the journal already.
        keys: SHA-256 of the SubjectPublicKeyInfo of each key that the counter counts.
    """
    waiting = tuple(use.number for use in recent if use.state is OutcomeState.BEGUN and is_of(use, keys))
    return Counted(enrolled=count, through=last_use, open=waiting)


def count_uses(counted: Counted, uses: Iterable[JournalUse], keys: frozenset[str]) -> Counted:
    """Take what became of operations that were open, and those above `through`, in any order.

    Args:
        counted: What was counted before.
        uses: Each at most once; one that is neither open nor new is passed over.
        keys: As in `enrol`; another key's uses are passed over.
    """
    waiting = set(counted.open)
    results, through = counted.results, counted.through
    for use in uses:
        is_new = use.number > counted.through
        through = max(through, use.number)
        if not (is_new and is_of(use, keys)) and use.number not in waiting:
            continue
        waiting.discard(use.number)
        if use.state is OutcomeState.BEGUN:
            waiting.add(use.number)
        results += use.state is OutcomeState.SIGNED
    return msgspec.structs.replace(counted, through=through, results=results, open=tuple(sorted(waiting)))


def is_of(use: JournalUse, keys: frozenset[str]) -> bool:
    """Whether an operation used one of these keys."""
    entry = parse_entry(use.entry)
    return isinstance(entry, Intent) and entry.key in keys


def verdict(counted: Counted, now: int) -> str:
    """`match` or `mismatch`.

    A counter that went backwards (another card, a new key, 24 bits that ran over) never matches: a person must look.
    """
    grown = now - counted.enrolled
    return MATCH if counted.results <= grown <= counted.results + counted.unknowns else MISMATCH
