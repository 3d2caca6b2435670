# SPDX-License-Identifier: Apache-2.0
"""A hub that is to be moved to PostgreSQL, and what must hold of it."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from postgres_server import PostgresServer
from privyseal.errors import PrivysealError
from privyseal.hub.config import HubFiles, load_hub_config
from privyseal.hub.diagnosis_database import database_rows
from privyseal.hub.moving import Moved, move_hub
from privyseal.ports.clock import system_clock
from privyseal.ports.diagnosis import Row
from privyseal.storage.schema import COPY_TABLE
from privyseal.tlog.entry import Admin, parse_entry
from stopped_hub import append, entries, opened, postgres_rows

__all__ = ["Move", "StepError", "killed"]


class StepError(Exception):
    """A step failed."""


@dataclass(kw_only=True)
class Move:
    """A hub's directory, and the empty database that it is to be moved to."""

    directory: Path
    server: PostgresServer
    database: str

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    @property
    def path(self) -> Path:
        return self.directory / "hub.db"

    async def run(self, **options: Any) -> Moved:
        return await move_hub(self.directory, self.url, **options)

    async def refused(self, **options: Any) -> PrivysealError:
        with pytest.raises(PrivysealError) as caught:
            await self.run(**options)
        return caught.value

    async def unmoved(self, code: str, **options: Any) -> PrivysealError:
        """It is refused for this reason, and both databases and hub.toml are as they were."""
        files = (self.path, self.directory / "hub.toml", self.directory / "head.checkpoint")
        before = [path.read_bytes() for path in files]
        there = await self.rows()
        refusal = await self.refused(**options)
        assert refusal.code == code, refusal
        assert refusal.hint
        assert [path.read_bytes() for path in files] == before
        assert await self.rows() == there
        return refusal

    async def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        return await postgres_rows(self.server, self.database)

    async def diagnosis(self) -> tuple[Row, ...]:
        """What the doctor says of the hub's database."""
        config = load_hub_config(self.directory)
        return await asyncio.to_thread(database_rows, HubFiles(self.directory), config, system_clock)

    def in_force(self) -> str:
        return load_hub_config(self.directory).database

    async def use(self) -> tuple[bytes, ...]:
        """What a hub does that is started now: it opens what is in force, and writes; the entries."""
        store = await opened(self.directory)
        await append(store)
        found = await entries(store)
        await store.close()
        return found

    async def check_moved(self, before: tuple[bytes, ...]) -> None:
        """Everything is in PostgreSQL, the log went on, and says once that it was moved."""
        assert self.in_force() == self.url
        assert not self.path.exists()
        assert [path.name[:13] for path in self.directory.glob("hub.db*")] == ["hub.db.moved-"]
        found = await self.use()
        assert found[: len(before)] == before
        said = [parse_entry(data) for data in found]
        assert sum(isinstance(one, Admin) and one.action == "move" for one in said) == 1
        assert COPY_TABLE not in await self.rows()


async def killed(script: str, *arguments: str | Path) -> int:
    """Run a program that kills itself; how it ended."""
    paths = os.pathsep.join(path for path in sys.path if path)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *map(str, arguments)), env={**os.environ, "PYTHONPATH": paths}
    )
    return await asyncio.wait_for(child.wait(), 60)
