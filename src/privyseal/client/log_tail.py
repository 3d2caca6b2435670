# SPDX-License-Identifier: Apache-2.0
"""The end of a log, and what is added to it: each entry is held against a signed checkpoint before it is shown."""

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from privyseal.client.log import PublicLog, check_root, rewound
from privyseal.errors import LogIntegrityError, UnavailableError
from privyseal.tlog.checkpoint import Checkpoint
from privyseal.tlog.rows import TileRows
from privyseal.tlog.tile import TILE_WIDTH
from privyseal.tlog.tree import leaf_hash

__all__ = ["Chosen", "LogTail", "Shown", "follow"]

_SHORTEST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 15.0
_LONGER: Final = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An entry that stands in the log."""

    index: int
    entry: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which entries are wanted.

    Attributes:
        kinds: Entry types; empty for all.
        since: Milliseconds since the epoch, or None.
        last: How many of the newest, or None for all.
    """

    kinds: frozenset[str] = frozenset()
    since: int | None = None
    last: int | None = None

    def takes(self, shown: Shown) -> bool:
        """Whether an entry is wanted, however many there are."""
        is_wanted = not self.kinds or shown.entry["t"] in self.kinds
        return is_wanted and (self.since is None or shown.entry["ts"] >= self.since)


class LogTail:
    """A log up to the newest checkpoint that was seen."""

    def __init__(self, log: PublicLog, chosen: Chosen) -> None:
        self._log = log
        self._chosen = chosen
        self._checkpoint: Checkpoint = log.checkpoint()
        self._rows = TileRows()

    def newest(self) -> tuple[Shown, ...]:
        """The newest wanted entries in their order.

        The log is read backwards, as far as needed; from there on the tree must grow to the checkpoint's root.

        Raises:
            LogIntegrityError: `log.root`, `log.entry`; what reading raises.
        """
        size, chosen = self._checkpoint.size, self._chosen
        found: deque[Shown] = deque()
        leaves: deque[bytes] = deque()
        first = -(-size // TILE_WIDTH) * TILE_WIDTH
        while first and (first >= size or chosen.last is None or len(found) < chosen.last):
            first -= TILE_WIDTH
            try:
                bundle = self._log.bundle(first // TILE_WIDTH, min(TILE_WIDTH, size - first))
            except LogIntegrityError as error:
                if error.code != "log.file_missing" or not leaves:
                    raise
                first += TILE_WIDTH  # what lies before was pruned
                break
            shown = [_shown(first + place, data) for place, data in enumerate(bundle)]
            found.extendleft(one for one in reversed(shown) if chosen.takes(one))
            leaves.extendleft(leaf_hash(data) for data in reversed(bundle))
            if chosen.since is not None and shown[0].entry["ts"] < chosen.since:
                break
        self._rows = self._log.rows(first, within=size)
        for leaf in leaves:
            self._rows.append(leaf)
        check_root(self._rows, self._checkpoint, self._log.place)
        surplus = 0 if chosen.last is None else max(0, len(found) - chosen.last)
        return tuple(islice(found, surplus, None))

    def more(self) -> tuple[Shown, ...]:
        """What was added since `newest` or the last call; all of it must lead to the new checkpoint's root.

        Raises:
            LogIntegrityError: `log.rewound`, `log.root`, `log.entry`.
        """
        checkpoint = self._log.checkpoint()
        if checkpoint.size < self._checkpoint.size:
            raise rewound(self._log.place, self._checkpoint.size, checkpoint.size)
        found: list[Shown] = []
        rows = self._rows.copy()
        for index, data in self._log.entries(rows.size, checkpoint.size):
            rows.append(leaf_hash(data))
            found.append(_shown(index, data))
        check_root(rows, checkpoint, self._log.place)
        self._rows, self._checkpoint = rows, checkpoint
        return tuple(one for one in found if self._chosen.takes(one))


def _shown(index: int, data: bytes) -> Shown:
    """An entry by its outer form alone: one of a type that this version does not know is shown, too."""
    try:
        entry = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LogIntegrityError("log.entry", f"entry {index}: it is not JSON: {error}") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("t"), str) or type(entry.get("ts")) is not int:
        raise LogIntegrityError("log.entry", f"entry {index}: it has no type and time")
    return Shown(index=index, entry=entry)


def follow(
    tail: LogTail, *, wait: Callable[[float], None], trouble: Callable[[UnavailableError], None]
) -> Iterator[tuple[Shown, ...]]:
    """Batches of wanted entries as they come, without end; the longer nothing comes, the longer it waits.

    Args:
        tail: The log; `newest` was read.
        wait: Sleeps for so many seconds.
        trouble: Told once each time that the log cannot be read; it is asked again.

    Raises:
        LogIntegrityError: the log does not hold any more.
    """
    pause, is_reachable = _SHORTEST_SECONDS, True
    while True:
        wait(pause)
        try:
            found = tail.more()
        except UnavailableError as error:
            if is_reachable:
                trouble(error)
            found, is_reachable = (), False
        else:
            is_reachable = True
        pause = _SHORTEST_SECONDS if found else min(pause * _LONGER, _LONGEST_SECONDS)
        if found:
            yield found
