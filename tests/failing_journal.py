# SPDX-License-Identifier: Apache-2.0
"""A journal's database in which one statement fails, or fails and yet took effect."""

import sqlite3
from typing import Any

__all__ = ["Faults"]


class Faults:
    """Makes one statement fail, and counts what each fsync belongs to."""

    def __init__(self) -> None:
        self.fail_at = ""
        self.persist = False
        self.seen: list[str] = []

    def connect(self, path: str) -> sqlite3.Connection:
        faults = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                faults.seen.append(sql)
                if faults.fail_at and sql.startswith(faults.fail_at):
                    if faults.persist:
                        super().execute(sql, parameters)
                    raise sqlite3.OperationalError("disk I/O error")
                return super().execute(sql, parameters)

        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)
