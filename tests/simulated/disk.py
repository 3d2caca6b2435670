# SPDX-License-Identifier: Apache-2.0
"""Simulated disks: real SQLite in memory, whose commits can fail, and of which a crash keeps what was durable.

A database is an image (`sqlite3_serialize`) between two lives of its process. A commit under synchronous=FULL is
durable when it returns. One under NORMAL may be lost with the power, and every one after it with it: SQLite's WAL
loses its end, never its middle.
"""

import io
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PosixPath
from typing import Any

from simulated.chaos import Chaos
from simulated.loop import Killed, Process

__all__ = ["Database", "HeadDisk"]


class _Connection(sqlite3.Connection):
    database: "Database"

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql == "COMMIT":
            return self.database.commit(super().execute)
        if sql == "BEGIN IMMEDIATE":
            self.database.begin()
        elif sql.startswith("PRAGMA synchronous"):
            self.database.durable = sql.endswith("FULL")
        return super().execute(sql, parameters)


@dataclass(kw_only=True)
class Database:
    """One database file. `committed` is called after each commit that is durable."""

    name: str
    chaos: Chaos
    image: bytes = b""
    committed: Callable[[sqlite3.Connection], None] = lambda _: None
    durable: bool = True
    _process: Process | None = None
    _connection: _Connection | None = None
    _not_durable: list[bytes] = field(default_factory=list)

    def open(self, process: Process) -> Callable[[str], sqlite3.Connection]:
        """The `connect` of this life of the process."""

        def connect(_path: str) -> sqlite3.Connection:
            connection = sqlite3.connect(":memory:", isolation_level=None, factory=_Connection, cached_statements=256)
            connection.database = self
            if self.image:
                connection.deserialize(self.image)
            self._process, self._connection, self._not_durable = process, connection, []
            process.at_death.append(self._crash)
            return connection

        return connect

    def count(self, sql: str) -> int:
        """Ask what the running process would see; -1 if none runs."""
        if self._connection is None:
            return -1
        number: int = self._connection.execute(sql).fetchone()[0]
        return number

    def point(self, name: str) -> None:
        """A step at which the process may be killed."""
        process = self._process
        if process is not None and self.chaos.strikes(f"{process.name} killed at a step"):
            self.chaos.struck.append(f"({name})")
            process.kill()
            raise Killed

    def begin(self) -> None:
        self.point(f"{self.name}: before the transaction")
        if self.chaos.strikes(f"{self.name} takes nothing"):
            raise sqlite3.OperationalError("database or disk is full")

    def commit(self, execute: Callable[[str], sqlite3.Cursor]) -> sqlite3.Cursor:
        self.point(f"{self.name}: before the commit")
        if self.chaos.strikes(f"{self.name} commit fails"):
            raise sqlite3.OperationalError("disk I/O error")
        if not self.durable and not self._not_durable:
            self._not_durable.append(self.image)
        cursor = execute("COMMIT")
        assert self._connection is not None
        self.image = self._connection.serialize()
        if self.durable:
            self._not_durable.clear()
            self.committed(self._connection)
        else:
            self._not_durable.append(self.image)
        if self.chaos.strikes(f"{self.name} commit fails and persists"):
            raise sqlite3.OperationalError("disk I/O error")
        self.point(f"{self.name}: after the commit")
        return cursor

    def _crash(self) -> None:
        if self._not_durable and self.chaos.choice.random() < 0.5:  # the power is lost, not only the process
            self.image = self.chaos.choice.choice(self._not_durable)
        self._connection = None


class _DiskPath(PosixPath):
    """A path whose file is on a `HeadDisk`."""

    files: dict[str, bytes]

    def open(self, *_args: Any, **_kwargs: Any) -> Any:
        content = self.files.get(str(self))
        if content is None:
            raise FileNotFoundError(str(self))
        return io.BytesIO(content)


class HeadDisk:
    """The directory of `head.checkpoint`: a rename is in place at once, and durable with the directory's fsync."""

    def __init__(self, chaos: Chaos) -> None:
        self._chaos = chaos
        self._files: dict[str, bytes] = {}
        self._before: dict[str, bytes] | None = None
        self._open: dict[int, str] = {}
        self._process: Process | None = None
        self.path = _DiskPath("/hub/head.checkpoint")
        self.path.files = self._files

    @property
    def content(self) -> bytes:
        """What `head.checkpoint` holds."""
        return self._files[str(self.path)]

    def restore(self, content: bytes) -> None:
        """Put a first `head.checkpoint` there."""
        self._files[str(self.path)] = content

    def begin_life(self, process: Process) -> None:
        self._process = process
        process.at_death.append(self._crash)

    def _crash(self) -> None:
        if self._before is not None and self._chaos.choice.random() < 0.5:
            self._files.clear()
            self._files.update(self._before)
        self._before = None
        self._open.clear()

    def _point(self, name: str) -> None:
        if self._process is not None and self._chaos.strikes("hub killed at a step"):
            self._chaos.struck.append(f"(head file: {name})")
            self._process.kill()
            raise Killed

    # -- FileSystem ----------------------------------------------------------------------------------------------

    def create(self, path: Path) -> int:
        self._point("create")
        descriptor = len(self._open) + 3
        self._open[descriptor] = str(path)
        self._files[str(path)] = b""
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        self._files[self._open[descriptor]] += data

    def sync(self, descriptor: int) -> None:
        self._point("sync")

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)  # gone already if the process was killed meanwhile

    def rename(self, source: Path, target: Path) -> None:
        self._point("rename")
        self._before = dict(self._files)
        self._files[str(target)] = self._files.pop(str(source))

    def sync_directory(self, path: Path) -> None:
        self._point("sync of the directory")
        self._before = None
