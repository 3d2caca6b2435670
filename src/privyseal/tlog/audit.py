# SPDX-License-Identifier: Apache-2.0
"""Recomputing a log: every entry in its order, every root, and what entries must say of each other.

Entries are fed one after the other; memory grows with open intents, agents and fences, and with the number of
signatures by a short digest each; the last 65,536 trees are kept for anchors. What does not hold ends the check with
the place where it stands.
"""

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import Final

from privyseal.errors import LogIntegrityError, MalformedInputError
from privyseal.tlog.agent_entries import AgentTold
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.entry import Admin, Anchor, Entry, Intent, Result, Unknown, parse_entry
from privyseal.tlog.rows import TileRows
from privyseal.tlog.tile import TILE_WIDTH, Tile
from privyseal.tlog.tree import Frontier, leaf_hash

__all__ = ["ANCHOR_WINDOW", "LogCheck", "LogSummary"]

#: How many entries may lie between a checkpoint and its anchor: the trees that are remembered on the way.
ANCHOR_WINDOW: Final = 65_536
#: What an end repeats of its intent.
_SHARED: Final = ("request", "item", "profile", "fence")
_REPEATED: Final = (*_SHARED, "key", "format", "artifact")
_OUTCOMES: Final = frozenset({"ok", "failed", "not-used"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """What a whole log came to.

    Attributes:
        counts: (entry type, how many), by name.
        pruned: How many entries from the beginning on are not there any more, as the log itself says.
        open_intents: Indexes of intents without result: under way, or cut off by a crash that was not resolved yet.
    """

    size: int
    root: bytes
    counts: tuple[tuple[str, int], ...]
    signatures: int
    open_intents: tuple[int, ...]
    pruned: int = 0


class LogCheck:
    """A check that is under way.

    Attributes:
        leaf: Leaf hash of the entry that was fed last.
        filled: The tiles that it filled, mostly none.
    """

    def __init__(self) -> None:
        self.leaf = b""
        self.filled: tuple[tuple[Tile, bytes], ...] = ()
        self._rows = TileRows()
        self._size = 0
        #: Entries that were skipped; how many the log says went; which of their intents were ended since.
        self._skipped = 0
        self._said_pruned = 0
        self._ended: set[int] = set()
        self._last_ms = 0
        self._counts: dict[str, int] = {}
        self._signatures = 0
        self._open: dict[int, Intent] = {}
        self._signed: set[bytes] = set()
        self._fences: dict[tuple[str, str], int] = {}
        #: The last number that each agent gave to what it told.
        self._told: dict[str, int] = {}
        self._continues = False
        self._past: deque[Frontier] = deque((self._rows.frontier,), maxlen=ANCHOR_WINDOW + 1)

    @property
    def size(self) -> int:
        """How many entries were fed."""
        return self._size

    @property
    def root(self) -> bytes:
        """The Merkle Tree Hash over what was fed."""
        return self._rows.root

    @property
    def skipped(self) -> int:
        """How many entries were skipped at the beginning."""
        return self._skipped

    def skip(self, leaf: bytes) -> None:
        """Take the leaf hash of the next entry, which was pruned; before any entry that is there."""
        self.leaf = leaf
        self.filled = self._rows.append(leaf)
        self._past.append(self._rows.frontier)
        self._size += 1
        self._skipped += 1

    def unfinished(self) -> tuple[tuple[Tile, bytes], ...]:
        """The partial tiles at the right edge, by level."""
        return self._rows.unfinished()

    def feed(self, data: bytes) -> Entry:
        """Take the next entry.

        Raises:
            LogIntegrityError: `log.entry`, naming its index and what is wrong.
        """
        index = self._size
        try:
            entry = parse_entry(data)
        except MalformedInputError as error:
            raise self._broken(index, str(error)) from error
        self.leaf = leaf_hash(data)
        self.filled = self._rows.append(self.leaf)
        self._past.append(self._rows.frontier)
        self._size += 1
        kind = str(entry.__struct_config__.tag)
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if entry.ts < self._last_ms:
            raise self._broken(index, f"its time is {self._last_ms - entry.ts} ms before that of an earlier entry")
        self._last_ms = entry.ts
        if (index == 0) != (isinstance(entry, Admin) and entry.action == "genesis"):
            raise self._broken(index, "a log begins with its genesis entry, and has no other")
        self._pair(index, entry)
        return entry

    def _pair(self, index: int, entry: Entry) -> None:
        match entry:
            case Intent():
                if entry.fence < self._fences.get((entry.agent, entry.key), 0):
                    raise self._broken(index, f"fence {entry.fence} is lower than one before it")
                self._fences[entry.agent, entry.key] = entry.fence
                self._open[index] = entry
            case Result() | Unknown():
                self._check_end(index, entry)
            case AgentTold():
                self._check_told(index, entry)
            case Admin(action="genesis"):
                self._continues = bool(entry.former)
            case Admin(action="prune"):
                if entry.entries % TILE_WIDTH or not self._said_pruned <= entry.entries <= index:
                    raise self._broken(index, f"it prunes {entry.entries} entries, which is no log's beginning")
                self._said_pruned = entry.entries
            case Anchor():
                self._check_anchor(index, entry)

    def _check_end(self, index: int, entry: Result | Unknown) -> None:
        intent = self._open.pop(entry.intent, None)
        if intent is not None:
            fields = _SHARED if isinstance(entry, Unknown) else _REPEATED
            for field in fields:
                if getattr(entry, field) != getattr(intent, field):
                    raise self._broken(index, f"`{field}` is not that of its intent at {entry.intent}")
        elif 0 <= entry.intent < self._skipped and entry.intent not in self._ended:
            self._ended.add(entry.intent)  # pruned: what it said nobody can compare
        else:
            raise self._broken(index, f"there is no open intent at index {entry.intent}")
        if isinstance(entry, Result):
            self._check_result(index, entry)

    def _check_result(self, index: int, entry: Result) -> None:
        if entry.outcome not in _OUTCOMES or (entry.outcome == "ok") != bool(entry.signature):
            raise self._broken(index, f"outcome {entry.outcome!r} and signature do not go together")
        if entry.outcome == "ok":
            name = hashlib.sha256(f"{entry.item} {entry.request}".encode()).digest()[:16]
            if name in self._signed:
                raise self._broken(index, "a second signature for the same item of a request")
            self._signed.add(name)
            self._signatures += 1

    def _check_told(self, index: int, entry: AgentTold) -> None:
        """The numbers of one agent follow one another: nobody can leave out what it told."""
        last = self._told.get(entry.agent)
        if last is None and (self._skipped or self._continues):
            last = entry.seq - 1  # those before it were pruned, or stand in the log that this one continues
        if entry.seq != (last or 0) + 1 or entry.seq < 1:
            raise self._broken(
                index, f"agent {entry.agent} tells event {entry.seq} after {last or 0}: one was left out or told twice"
            )
        self._told[entry.agent] = entry.seq

    def _check_anchor(self, index: int, entry: Anchor) -> None:
        place = entry.size - self._past[0].size
        if not 0 <= place < len(self._past) - 1:
            raise self._broken(index, f"it anchors a log of {entry.size} entries, more than {ANCHOR_WINDOW} away")
        if self._past[place].root.hex() != entry.root:
            raise self._broken(index, f"it anchors another log of {entry.size} entries than this one")

    def check_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Hold a checkpoint of exactly this size against what was recomputed.

        Raises:
            LogIntegrityError: `log.root`.
        """
        if checkpoint.size != self._size:
            raise LogIntegrityError(
                "log.root", f"a checkpoint speaks of {checkpoint.size} entries; {self._size} can be read"
            )
        if checkpoint.root != self._rows.root:
            raise LogIntegrityError(
                "log.root", f"the checkpoint of {checkpoint.size} entries has another root than these entries"
            )

    def end(self, checkpoint: Checkpoint) -> None:
        """Hold the newest checkpoint against what was recomputed; what is missing must have been pruned.

        Raises:
            LogIntegrityError: `log.root`; `log.pruned` if entries are missing, and none says why.
        """
        self.check_checkpoint(checkpoint)
        if self._skipped > self._said_pruned:
            raise LogIntegrityError(
                "log.pruned",
                f"the first {self._skipped} entries are missing; the log says of {self._said_pruned} that they were"
                " pruned",
                hint="if it is an export, write it again: privyseal log export; else something was taken away",
            )

    def summary(self) -> LogSummary:
        """What was seen so far."""
        return LogSummary(
            size=self._size,
            root=self._rows.root,
            counts=tuple(sorted(self._counts.items())),
            signatures=self._signatures,
            open_intents=tuple(sorted(self._open)),
            pruned=self._skipped,
        )

    def _broken(self, index: int, reason: str) -> LogIntegrityError:
        return LogIntegrityError("log.entry", f"entry {index}: {reason}")
