# SPDX-License-Identifier: Apache-2.0
"""What a witness cosigned last of each log, durable before any cosignature leaves.

It is written twice: the state, then the guard. After a crash the state is at most newer than the guard; a state that
is older was brought back from a copy, and a witness that forgot must not go on under the same key.
"""

import errno
import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import msgspec

from privyseal.errors import ConfigError, LogIntegrityError
from privyseal.storage.durable_file import FileSystem, replace_durably
from privyseal.tlog.tree import HASH_BYTES, MAX_TREE_SIZE
from privyseal.tlog.witness import Seen

__all__ = ["MemoryPlace", "WitnessMemory", "read_memory"]

_MAX_BYTES: Final = 16 * 1024 * 1024
_LOST_HINT: Final = (
    "put the newest file back; if it is lost, give this witness up: make a new one, with a new key and name, and put"
    " that into the policies"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlace:
    """Where it is kept.

    Attributes:
        witness: Verifier keys of the witness whose memory it is, in their order.
    """

    state: Path
    guard: Path
    lock: Path
    witness: tuple[str, ...]


class _SeenRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    origin: str
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_TREE_SIZE)]
    root: Annotated[bytes, msgspec.Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the two files; `serial` grows with each attempt to write."""

    v: int = 1
    witness: tuple[str, ...]
    serial: Annotated[int, msgspec.Meta(ge=0)]
    seen: tuple[_SeenRow, ...] = ()

    def mapping(self) -> dict[str, Seen]:
        return {row.origin: Seen(size=row.size, root=row.root) for row in self.seen}


class WitnessMemory:
    """The memory of one running witness. Made by `open`; its caller lets one call run at a time."""

    def __init__(self, place: MemoryPlace, files: FileSystem, document: _Document, lock: int) -> None:
        self._place: Final = place
        self._files: Final = files
        self._lock: Final = lock
        self._seen = document.mapping()
        self._serial = document.serial
        self._closed = False

    @classmethod
    def create(cls, place: MemoryPlace, files: FileSystem) -> None:
        """Write the memory of a witness that has seen nothing.

        Raises:
            OSError: as `replace_durably`.
        """
        _write(files, place, _Document(witness=place.witness, serial=0))

    @classmethod
    def open(cls, place: MemoryPlace, files: FileSystem) -> "WitnessMemory":
        """Take up what the witness remembers, alone.

        Raises:
            ConfigError: `witness.running` if another process does.
            LogIntegrityError: `witness.state_missing`, `witness.state_unreadable`, `witness.rollback`.
            OSError: if a file cannot be opened.
        """
        lock = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(lock, place)
            return cls(place, files, _checked(place, files), lock)
        except BaseException:
            os.close(lock)
            raise

    @property
    def seen(self) -> Mapping[str, Seen]:
        """What was cosigned last, by origin."""
        return MappingProxyType(self._seen)

    def remember(self, origin: str, seen: Seen) -> None:
        """Put a newer tree of a log there, durably.

        Raises:
            OSError: as `replace_durably`; then nothing may be cosigned, and it can be tried again.
        """
        if self._closed:
            raise OSError(errno.EBADF, "the witness has ended")
        if self._seen.get(origin) == seen:
            return
        # A serial is never used for two contents, also if it is open which of them survived.
        self._serial += 1
        newer = self._seen | {origin: seen}
        rows = tuple(_SeenRow(origin=name, size=one.size, root=one.root) for name, one in sorted(newer.items()))
        document = _Document(witness=self._place.witness, serial=self._serial, seen=rows)
        _write(self._files, self._place, document)
        self._seen = newer

    def close(self) -> None:
        """Let another process take it up."""
        self._closed = True
        os.close(self._lock)


def read_memory(place: MemoryPlace) -> Mapping[str, Seen]:
    """What the witness cosigned last, by origin, also while it runs.

    Raises:
        LogIntegrityError: `witness.state_missing`, `witness.state_unreadable`.
    """
    return _read(place.state, place.witness).mapping()


def _write(files: FileSystem, place: MemoryPlace, document: _Document) -> None:
    data = msgspec.json.encode(document)
    replace_durably(files, place.state, data)
    replace_durably(files, place.guard, data)


def _take(lock: int, place: MemoryPlace) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(
            "witness.running",
            f"another process runs the witness of {place.lock.parent}",
            hint="end it first: two at once could cosign two trees of one size",
        ) from error


def _checked(place: MemoryPlace, files: FileSystem) -> _Document:
    state, guard = _read(place.state, place.witness), _read(place.guard, place.witness)
    if state.serial < guard.serial or (state.serial == guard.serial and state != guard):
        raise LogIntegrityError(
            "witness.rollback",
            f"{place.state} (number {state.serial}) is older than {place.guard} (number {guard.serial}), or another",
            hint=_LOST_HINT,
        )
    if state != guard:
        # The process ended between the two, or before the new state's name was on the medium.
        _write(files, place, state)
    return state


def _read(path: Path, witness: tuple[str, ...]) -> _Document:
    try:
        with path.open("rb") as file:
            document = msgspec.json.decode(file.read(_MAX_BYTES), type=_Document)
    except FileNotFoundError as error:
        raise LogIntegrityError(
            "witness.state_missing", f"what the witness cosigned last is lost: {path} is missing", hint=_LOST_HINT
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LogIntegrityError(
            "witness.state_unreadable", f"{path} is not what a witness remembers: {error}", hint=_LOST_HINT
        ) from error
    if document.v != 1 or document.witness != witness:
        raise LogIntegrityError(
            "witness.state_unreadable",
            f"{path} is what a witness with other keys remembers: {[vkey[:60] for vkey in document.witness[:2]]}",
            hint=_LOST_HINT,
        )
    return document
