# SPDX-License-Identifier: Apache-2.0
"""Custody of one token: what the agent can show of who used its keys, durable and told into the log.

Whoever keeps the token calls what happens to it; the calls come one at a time. What is not called is not claimed: time
without a look is unproven.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from privyseal.agent.counting import KeyCounts, not_frozen_error
from privyseal.agent.custody_spans import Interval, Look, Moment, Reason
from privyseal.agent.custody_timeline import Timeline
from privyseal.agent.outbox import EntryMaker, Outbox
from privyseal.agent.reconciling import Counted
from privyseal.ports.journal import AgentJournal
from privyseal.ports.token import KeyCounter, ReaderUse, TokenInfo, TokenKey
from privyseal.tlog.entry import AgentEntry, Custody

__all__ = ["Custodian", "accept_counter", "strangers", "system_moment"]

#: A crash makes at most so much unproven that was proven: an fsync for each look would wear out a memory card.
_REMEMBERED_EVERY_MS: Final = 60_000


class _Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives the agent's process."""

    serial: str = ""
    keys: tuple[str, ...] = ()
    is_hardware: bool = False
    interval: Interval | None = None
    is_stopped: bool = False
    counted: dict[str, Counted] = {}
    frozen: dict[str, str] = {}


class Custodian:
    """One token's custody and counters. Made by `open`."""

    def __init__(
        self, *, name: str, memory: _Memory, journal: AgentJournal, outbox: Outbox, clocks: Callable[[], Moment]
    ) -> None:
        self._name: Final = name
        self._journal: Final = journal
        self._outbox: Final = outbox
        self._clocks: Final = clocks
        self._serial = memory.serial
        self._keys = memory.keys
        self._timeline = Timeline(memory.interval, Reason.STOPPED if memory.is_stopped else Reason.CRASHED)
        self._counts: Final = KeyCounts(journal, memory.counted, memory.frozen)
        self._by_id: dict[bytes, str] = {}
        #: What is told before anything more is remembered, also if the journal failed meanwhile.
        self._pending: Final[deque[EntryMaker]] = deque()
        self._is_hardware = memory.is_hardware
        self._holder = 0
        self._remembered_ms: int | None = None
        #: Whether something is not remembered that must be, also if the journal failed meanwhile.
        self._is_behind = False
        #: Whether the next reconciliation is told whatever it finds.
        self._is_fresh = True

    @classmethod
    async def open(
        cls, *, name: str, journal: AgentJournal, outbox: Outbox, clocks: Callable[[], Moment]
    ) -> "Custodian":
        """Go on where the last run ended.

        Args:
            name: Of the token in agent.toml.
            journal: The agent's.
            outbox: Takes what is told.
            clocks: The time.

        Raises:
            PrivysealError: what the journal raises.
        """
        data = await journal.recall(_memory_name(name))
        memory = _Memory() if data is None else msgspec.json.decode(data, type=_Memory)
        return cls(name=name, memory=memory, journal=journal, outbox=outbox, clocks=clocks)

    @property
    def frozen(self) -> frozenset[str]:
        """Keys that must not be used: SHA-256 of the SubjectPublicKeyInfo, in hex."""
        return frozenset(self._counts.frozen)

    async def attached(self, info: TokenInfo, keys: tuple[TokenKey, ...]) -> None:
        """The token is there (again), with these keys: what lies between the last look and the next is unproven.

        Raises:
            PrivysealError: what the journal raises.
        """
        serial, names = info.serial or self._name, {key.key_id: _name(key) for key in keys}
        if (serial, tuple(names.values())) != (self._serial, self._keys):
            self._told_custody(self._timeline.close())
            self._serial, self._keys = serial, tuple(names.values())
        self._by_id = names
        self._is_hardware = info.hardware
        self._is_fresh = True
        self._timeline.interrupt()
        await self._remember()

    async def looked(
        self, *, healthy: bool, others: int | None, card_events: int | None, moved: Reason | None = None
    ) -> None:
        """The token was looked at, and is there.

        Args:
            healthy: Whether it answered.
            others: Programs besides the agent's that are connected to pcscd (`strangers`); None if nobody can tell.
            card_events: As in `ReaderUse`.
            moved: As in `Look`.

        Raises:
            PrivysealError: what the journal raises.
        """
        await self._see(present=True, healthy=healthy, others=others, card_events=card_events, moved=moved)

    async def detached(self) -> None:
        """The token was looked for, and is not there.

        Raises:
            PrivysealError: what the journal raises.
        """
        await self._see(present=False, healthy=False, others=None, card_events=None)

    def worker_changed(self) -> None:
        """Another process holds the token now: nobody held it in between."""
        self._holder += 1

    async def stopping(self) -> None:
        """The agent ends in order; call nothing after this.

        Raises:
            PrivysealError: what the journal raises.
        """
        self._told_custody(self._timeline.cut())
        await self._remember(is_stopped=True)

    async def reconcile(self, counters: tuple[KeyCounter, ...]) -> None:
        """Hold the token's counters against what was signed; while it signs nothing, and before it signs at first.

        A key whose counter does not match is in `frozen` when this returns, and stays there until a person accepts the
        counter.

        Raises:
            PrivysealError: what the journal raises.
        """
        said = await _accepted(self._journal, self._name)
        accepted = said & self.frozen  # what was said of a key that is not frozen does not count when it is
        for counter in counters:
            key = self._by_id.get(counter.key_id)
            if key is None:
                continue
            told = await self._counts.reconcile(
                key,
                counter.count,
                now_ms=self._clocks().wall_ms,
                accepted=key in accepted,
                again=self._is_fresh,
                token=self._serial,
            )
            self._pending.extend(told)
        self._is_fresh = False
        self._is_behind = self._is_behind or bool(self._pending)
        if self._is_behind:
            await self._remember()
        if said != accepted & self.frozen:  # a counter that could not be read now is accepted when it can
            await _accept(self._journal, self._name, accepted & self.frozen)

    async def accept(self, key: str) -> None:
        """A person has looked into a frozen key: with the next counter, counting begins anew and it may be used.

        Raises:
            ConflictError: `key.not_frozen`.
            PrivysealError: what the journal raises.
        """
        if key not in self.frozen:
            raise not_frozen_error(key)
        await _accept(self._journal, self._name, await _accepted(self._journal, self._name) | {key})

    async def _see(
        self,
        *,
        present: bool,
        healthy: bool,
        others: int | None,
        card_events: int | None,
        moved: Reason | None = None,
    ) -> None:
        moment = self._clocks()
        look = Look(
            moment=moment,
            present=present,
            hardware=self._is_hardware,
            healthy=healthy,
            holder=self._holder,
            others=others,
            card_events=card_events,
            moved=moved,
        )
        former = self._timeline.interval
        closed = self._timeline.saw(look)
        self._told_custody(closed)
        opened = self._timeline.interval
        is_changed = (former and former.reason) != (opened and opened.reason)
        last_ms = self._remembered_ms
        is_due = last_ms is None or moment.boot_ms - last_ms >= _REMEMBERED_EVERY_MS
        self._is_behind = self._is_behind or bool(closed) or is_changed or is_due
        if self._is_behind:
            await self._remember()

    def _told_custody(self, intervals: Iterable[Interval]) -> None:
        for interval in intervals:
            for key in self._keys if interval.since_ms < interval.until_ms else ():
                self._pending.append(_custody(self._serial, key, interval))

    async def _remember(self, *, is_stopped: bool = False) -> None:
        """Tell what is to be told, then remember: a crash in between tells it twice, never not at all."""
        while self._pending:
            await self._outbox.tell(self._pending[0])
            self._pending.popleft()
        await self._outbox.write()
        memory = _Memory(
            serial=self._serial,
            keys=self._keys,
            is_hardware=self._is_hardware,
            interval=self._timeline.interval,
            is_stopped=is_stopped,
            counted=self._counts.counted,
            frozen=self._counts.frozen,
        )
        await self._journal.remember(_memory_name(self._name), msgspec.json.encode(memory))
        self._remembered_ms = self._clocks().boot_ms
        self._is_behind = False


async def accept_counter(journal: AgentJournal, name: str, key: str) -> None:
    """`Custodian.accept` beside an agent that may be running: it begins to count anew with its next look.

    Args:
        journal: The agent's, opened a second time.
        name: Of the token in agent.toml.
        key: SHA-256 of the SubjectPublicKeyInfo, in hex.

    Raises:
        ConflictError: `key.not_frozen`.
        PrivysealError: what the journal raises.
    """
    data = await journal.recall(_memory_name(name))
    if data is None or key not in msgspec.json.decode(data, type=_Memory).frozen:
        raise not_frozen_error(key)
    await _accept(journal, name, await _accepted(journal, name) | {key})


async def _accepted(journal: AgentJournal, name: str) -> frozenset[str]:
    data = await journal.recall(_accepted_name(name))
    return frozenset(() if data is None else msgspec.json.decode(data, type=tuple[str, ...]))


async def _accept(journal: AgentJournal, name: str, keys: frozenset[str]) -> None:
    await journal.remember(_accepted_name(name), msgspec.json.encode(tuple(sorted(keys))))


def strangers(use: ReaderUse | None, beside: Iterable[ReaderUse]) -> int | None:
    """Programs connected to pcscd that are none of the agent's; None if nobody can tell.

    Args:
        use: What a token's worker sees.
        beside: What the workers of the agent's other tokens behind the same pcscd saw last.
    """
    if use is None:
        return None
    return max(0, use.connections - use.own - sum(one.own for one in beside))


def system_moment() -> Moment:
    """Now, by the host's clocks. Without CLOCK_BOOTTIME a host that slept looks like one whose clock was set."""
    boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Moment(
        wall_ms=time.time_ns() // 1_000_000,
        awake_ms=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000,
        boot_ms=time.clock_gettime_ns(boot) // 1_000_000,
    )


def _name(key: TokenKey) -> str:
    return hashlib.sha256(key.spki).hexdigest()


def _memory_name(name: str) -> str:
    return f"custody {name}"


def _accepted_name(name: str) -> str:
    return f"custody accepted {name}"


def _custody(token: str, key: str, interval: Interval) -> EntryMaker:
    def make(at: int, agent: str) -> AgentEntry:
        return Custody(
            ts=at,
            agent=agent,
            seq=0,
            at=at,
            token=token,
            key=key,
            since=interval.since_ms,
            until=interval.until_ms,
            state=interval.state,
            reason=interval.reason,
        )

    return make
