# SPDX-License-Identifier: Apache-2.0
"""The counters of one token's keys, held against the journal; a key whose counter does not match is frozen.

What is to be told comes back as entries to be made.
"""

from collections.abc import AsyncIterator
from typing import Final

import msgspec

from privyseal.agent.outbox import EntryMaker
from privyseal.agent.reconciling import MISMATCH, Counted, count_uses, enrol, verdict
from privyseal.errors import ConflictError, TokenError
from privyseal.ports.journal import AgentJournal, JournalUse
from privyseal.tlog.entry import AgentEntry, Freeze, Reconcile

__all__ = ["KeyCounts", "frozen_error", "not_frozen_error"]

_MISMATCH_CODE: Final = "token.counter_mismatch"
_ACCEPTED_CODE: Final = "token.counter_accepted"
_TOLD_EVERY_MS: Final = 3_600_000
_AT_ONCE: Final = 512
#: A job has 256 items at most, one runs and one is prepared: older operations are over, whatever became of them.
_MAY_BE_UNDER_WAY: Final = 512


class KeyCounts:
    """Counts and frozen keys, by the SHA-256 of the SubjectPublicKeyInfo.

    Args:
        journal: Where uses are written down.
        counted: What was counted before.
        frozen: Keys that are frozen, with the code that says why.
    """

    def __init__(self, journal: AgentJournal, counted: dict[str, Counted], frozen: dict[str, str]) -> None:
        self._journal: Final = journal
        self.counted: Final = dict(counted)
        self.frozen: Final = dict(frozen)

    async def reconcile(
        self, key: str, count: int, *, now_ms: int, accepted: bool, again: bool, token: str
    ) -> tuple[EntryMaker, ...]:
        """Hold a counter against the journal, while the token is at rest.

        Args:
            key: SHA-256 of the SubjectPublicKeyInfo.
            count: Its counter now.
            now_ms: Milliseconds since the epoch.
            accepted: Whether a person has looked into a frozen key: counting begins anew.
            again: Whether a match is worth telling although one was told within the hour.
            token: The token's serial number.
        """
        before = self.counted.get(key)
        if before is None or (accepted and key in self.frozen):
            return await self._enrol(key, count, now_ms, token)
        counted = await self._count(key, before)
        found = verdict(counted, count)
        told: list[EntryMaker] = []
        is_new_mismatch = found == MISMATCH and key not in self.frozen
        if is_new_mismatch or again or now_ms - counted.told_ms >= _TOLD_EVERY_MS:
            told.append(_reconcile(token, key, counted, count))
            counted = msgspec.structs.replace(counted, told_ms=now_ms)
        if is_new_mismatch:
            told.append(_freeze(token, key, frozen=True, code=_MISMATCH_CODE))
            self.frozen[key] = _MISMATCH_CODE
        self.counted[key] = counted
        return tuple(told)

    async def _enrol(self, key: str, count: int, now_ms: int, token: str) -> tuple[EntryMaker, ...]:
        last = await self._journal.last_use()
        recent = [use async for use in self._uses(max(0, last - _MAY_BE_UNDER_WAY))]
        counted = enrol(count, last, recent, frozenset((key,)))
        self.counted[key] = msgspec.structs.replace(counted, told_ms=now_ms)
        told = [_reconcile(token, key, counted, count)]
        if self.frozen.pop(key, None) is not None:
            told.insert(0, _freeze(token, key, frozen=False, code=_ACCEPTED_CODE))
        return tuple(told)

    async def _count(self, key: str, counted: Counted) -> Counted:
        uses = [use for number in counted.open for use in await self._journal.uses(number - 1, 1)]
        uses += [use async for use in self._uses(counted.through)]
        return count_uses(counted, uses, frozenset((key,)))

    async def _uses(self, after: int) -> AsyncIterator[JournalUse]:
        while uses := await self._journal.uses(after, _AT_ONCE):
            for use in uses:
                yield use
            after = uses[-1].number


def frozen_error(key: str) -> TokenError:
    """Why a frozen key is not used."""
    return TokenError(
        "key.frozen",
        f"key sha256:{key} is frozen: its signature counter does not match what this agent signed",
        hint="find out who used it (privyseal key custody shows when); then accept the counter: privyseal key accept",
    )


def not_frozen_error(key: str) -> ConflictError:
    """Why there is nothing to accept."""
    return ConflictError(
        "key.not_frozen", f"key sha256:{key} is not frozen here", hint="list this host's keys: privyseal key list"
    )


def _reconcile(token: str, key: str, counted: Counted, now: int) -> EntryMaker:
    def make(at: int, agent: str) -> AgentEntry:
        return Reconcile(
            ts=at,
            agent=agent,
            seq=0,
            at=at,
            token=token,
            key=key,
            enrolled=counted.enrolled,
            now=now,
            results=counted.results,
            unknowns=counted.unknowns,
            verdict=verdict(counted, now),
        )

    return make


def _freeze(token: str, key: str, *, frozen: bool, code: str) -> EntryMaker:
    def make(at: int, agent: str) -> AgentEntry:
        return Freeze(ts=at, agent=agent, seq=0, at=at, token=token, key=key, frozen=frozen, code=code)

    return make
