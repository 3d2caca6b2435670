# SPDX-License-Identifier: Apache-2.0
"""Holding what agents signed under against the log, on the way through it.

A record's operations come in the order of their checkpoints' sizes: at each of these sizes the log must have the root
that the agent was shown, and below it the entry. Memory grows with intents that the agent never began, and with
operations that the log has not ended yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

from privyseal.client.log import PublicLog, rewound
from privyseal.errors import LogIntegrityError, MalformedInputError
from privyseal.tlog.agent_record import MAX_LINE_BYTES, Held, Operation, RecordHead, parse_line
from privyseal.tlog.audit import LogCheck
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.entry import Entry, Intent, Result, Unknown, parse_entry
from privyseal.tlog.tree import EMPTY_ROOT, leaf_hash

__all__ = ["AgentComparison", "AgentVerdict", "Difference"]

_MALFORMED: Final = "record.malformed"
#: What is told one by one; the rest is counted.
_TOLD: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An operation that ended otherwise in the log than at the agent.

    Attributes:
        intent: Index of the INTENT.
        agent: `begun`, `signed` or `failed`.
        log: `ok`, `failed`, `not-used`, `unknown`; `other signature` for another one than the agent's.
    """

    intent: int
    agent: str
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentVerdict:
    """A record that the log does not contradict.

    Attributes:
        agent: SHA-256 of the agent's request key in hex.
        operations: How many the agent began; each stands in the log, below the checkpoint that the agent was shown.
        signed: How many of them ended with a signature.
        pruned: How many of them were pruned from the log, so that only their checkpoints could be compared.
        never_begun: Intents for this agent that it never began, the first hundred by index; `never_begun_count` all.
        different: Operations that ended otherwise in the log, the first hundred; `different_count` all.
    """

    path: Path
    agent: str
    operations: int
    signed: int
    pruned: int
    never_begun: tuple[int, ...]
    never_begun_count: int
    different: tuple[Difference, ...]
    different_count: int


@dataclass(slots=True)
class _Use:
    """An intent for this agent that is not settled: what the agent and the log say of its end."""

    index: int
    agent: Operation | None = None
    log: Result | Unknown | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What an agent was shown: a checkpoint, and the operation that was begun under it."""

    checkpoint: Checkpoint
    note: str
    operation: Operation | None


@dataclass(slots=True)
class _Tally:
    signed: int = 0
    pruned: int = 0
    different_count: int = 0
    different: list[Difference] = field(default_factory=list)


class AgentComparison:
    """A comparison of one record that is under way.

    Attributes:
        contradicted: The signed checkpoint that the log contradicts, once it does.
    """

    def __init__(self, path: Path, stream: BinaryIO, log: PublicLog) -> None:
        """Read the record's head.

        Raises:
            MalformedInputError: `record.malformed`.
            LogIntegrityError: `log.checkpoint` if the record is of another log.
        """
        self.contradicted = ""
        self._path: Final = path
        self._log: Final = log
        self._stream: Final = stream
        self._number = 0
        head = self._read()
        if not isinstance(head, RecordHead):
            self._refuse("does not begin with its head")
        if head.origin != log.origin:
            self._refuse(f"is of log {head.origin[:80]!r}, not of {log.origin!r}")
        self._head: Final[RecordHead] = head
        self._shown: Final = self._read_shown()
        self._next = next(self._shown, None)
        #: Time of the first entry that was not pruned.
        self._first_ms: int | None = None
        self._by_leaf: dict[bytes, _Use] = {}
        self._by_index: dict[int, _Use] = {}
        self._tally: Final = _Tally()

    def follow(self, check: LogCheck, index: int, entry: Entry | None) -> None:
        """Take the entry that the check has just taken.

        Raises:
            LogIntegrityError: `log.fork`, `log.agent_entry`.
            MalformedInputError: `record.malformed`.
        """
        if entry is not None and self._first_ms is None:
            self._first_ms = entry.ts
        if isinstance(entry, Intent):
            if entry.agent == self._head.agent:
                self._by_leaf[check.leaf] = self._by_index[index] = _Use(index=index)
        elif isinstance(entry, Result | Unknown) and (use := self._by_index.get(entry.intent)) is not None:
            use.log = entry
            self._settle(use)
        while self._next is not None and self._next.checkpoint.size <= check.size:
            self._hold_against(self._next, check)
            self._next = next(self._shown, None)

    def finish(self, checkpoint: Checkpoint) -> None:
        """Nothing that the agent was shown may lie beyond the log's newest checkpoint.

        Raises:
            LogIntegrityError: `log.rewound`.
        """
        if self._next is not None:
            self.contradicted = self._next.note
            raise rewound(self._log.place, self._next.checkpoint.size, checkpoint.size)

    def verdict(self) -> AgentVerdict:
        """What came out; after `finish`."""
        never = sorted(use.index for use in self._by_leaf.values())
        return AgentVerdict(
            path=self._path,
            agent=self._head.agent,
            operations=self._head.operations,
            signed=self._tally.signed,
            pruned=self._tally.pruned,
            never_begun=tuple(never[:_TOLD]),
            never_begun_count=len(never),
            different=tuple(self._tally.different),
            different_count=self._tally.different_count,
        )

    def _hold_against(self, shown: _Shown, check: LogCheck) -> None:
        size = shown.checkpoint.size
        if shown.checkpoint.root != (check.root if size else EMPTY_ROOT):
            self.contradicted = shown.note
            raise LogIntegrityError(
                "log.fork",
                f"the agent of {self._path} was shown another log of {size} entries than {self._log.place} has",
                hint="the log was forked: the agent's checkpoint and the log's contradict each other, and the log's key"
                " signed both",
            )
        operation = shown.operation
        if operation is None:
            return
        if check.size == check.skipped or (check.skipped and self._may_be_pruned(operation)):
            self._tally.signed += operation.outcome == "signed"
            self._tally.pruned += 1
            return
        use = self._by_leaf.pop(leaf_hash(operation.entry.encode()), None)
        if use is None:
            self.contradicted = shown.note
            raise LogIntegrityError(
                "log.agent_entry",
                f"line {self._number - 1} of {self._path}: the first {size} entries of the log do not hold this intent,"
                " or hold it once and the record twice",
                hint="the record was changed after it was written, or the agent signs what it did not check",
            )
        use.agent = operation
        self._tally.signed += operation.outcome == "signed"
        self._settle(use)

    def _may_be_pruned(self, operation: Operation) -> bool:
        entry = parse_entry(operation.entry.encode())
        is_there = leaf_hash(operation.entry.encode()) in self._by_leaf
        return not is_there and self._first_ms is not None and entry.ts <= self._first_ms

    def _settle(self, use: _Use) -> None:
        """Compare both ends, once both are known."""
        if use.agent is None or use.log is None:
            return
        del self._by_index[use.index]
        says = _end(use.log, use.agent.signature)
        if says in _FITTING[use.agent.outcome]:
            return
        self._tally.different_count += 1
        if len(self._tally.different) < _TOLD:
            self._tally.different.append(Difference(intent=use.index, agent=use.agent.outcome, log=says))

    def _read(self) -> RecordHead | Operation | Held | None:
        line = self._stream.readline(MAX_LINE_BYTES + 1)
        self._number += 1
        return parse_line(line, self._place) if line else None

    @property
    def _place(self) -> str:
        return f"the agent's record {self._path}, line {self._number}"

    def _read_shown(self) -> Iterator[_Shown]:
        """The checkpoints, each signed by the log's key, in the order of their sizes."""
        note, checkpoint = "", Checkpoint(origin=self._log.origin, size=0, root=EMPTY_ROOT)
        count = 0
        while (line := self._read()) is not None:
            if isinstance(line, RecordHead) or (isinstance(line, Held) and count != self._head.operations):
                self._refuse("has its lines in another order than an agent writes them")
            if line.checkpoint != note:
                before, note = checkpoint.size, line.checkpoint
                checkpoint = self._log.open(note)
                if checkpoint.size < before:
                    self._refuse("does not have its checkpoints in the order of their sizes")
            if isinstance(line, Held):
                yield _Shown(checkpoint=checkpoint, note=note, operation=None)
                break
            count += 1
            self._check_operation(line)
            yield _Shown(checkpoint=checkpoint, note=note, operation=line)
        if count != self._head.operations or self._read() is not None:
            self._refuse(f"does not end after the {self._head.operations} operations that it names")

    def _check_operation(self, operation: Operation) -> None:
        try:
            entry = parse_entry(operation.entry.encode())
        except (MalformedInputError, UnicodeEncodeError) as error:
            self._refuse(f"has no entry: {error}")
        if not isinstance(entry, Intent) or entry.agent != self._head.agent:
            self._refuse("has an entry that is no intent for this agent")
        if (operation.outcome == "signed") != bool(operation.signature):
            self._refuse("has an outcome and a signature that do not go together")

    def _refuse(self, why: str) -> NoReturn:
        raise MalformedInputError(_MALFORMED, f"{self._place}, {why}")


#: A crash may take the agent's knowledge of an end away, and `unknown` is what the hub writes when nobody can be asked.
_FITTING: Final = {
    "begun": frozenset({"ok", "failed", "unknown"}),
    "signed": frozenset({"ok"}),
    "failed": frozenset({"failed", "not-used"}),
}


def _end(entry: Result | Unknown, signature: str) -> str:
    if isinstance(entry, Unknown):
        return "unknown"
    if entry.outcome == "ok" and signature and entry.signature != signature:
        return "other signature"
    return entry.outcome
