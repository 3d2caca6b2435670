# SPDX-License-Identifier: Apache-2.0
"""docs/postgresql.md: the commands that move and upgrade a hub's database run as they stand there."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pages import ROOT, blocks, commands
from postgres_server import PostgresServer
from privyseal.hub.config import load_hub_config
from privyseal.hub.moving import Stage
from programs import Outcome, privyseal
from stopped_hub import append, entries, made_hub, opened

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "postgresql.md"
DIRECTORY = "/var/lib/privyseal-hub"


def run(section: str, hub: Path, url: str) -> Iterator[Outcome]:
    """The section's commands, with this hub and this database."""
    (block,) = [block for block in blocks(PAGE, "sh") if block.section == section]
    for command in commands(PAGE, "privyseal", block.text):
        words = [str(hub) if word == DIRECTORY else word for word in command.words]
        yield privyseal(*(url if word.startswith("postgresql://") else word for word in words))


def test_a_hub_moves_and_is_upgraded_by_the_page(tmp_path: Path, postgres: PostgresServer) -> None:
    hub = asyncio.run(made_hub(tmp_path / "hub"))
    database = asyncio.run(postgres.make_database())
    url = postgres.url(database)

    looked, moved = run("Moving from SQLite", hub, url)

    assert [looked.code, moved.code] == [0, 0]
    assert re.match(r"would move +[0-9]+ tables, [0-9]+ rows, a log of [0-9]+ entries\n", looked.out)
    assert re.match(r"moved +[0-9]+ tables, [0-9]+ rows, a log of [0-9]+ entries, in [0-9.]+ s\n", moved.out)
    assert [line.removeprefix("so far: ") for line in moved.err.splitlines()] == [str(stage) for stage in Stage]
    assert load_hub_config(hub).database == url
    (aside,) = hub.glob("hub.db*")
    assert aside.name.startswith("hub.db.moved-")

    checked, migrated = run("Upgrading", hub, url)
    assert [checked.code, migrated.code] == [0, 0]

    async def use() -> int:
        store = await opened(hub)
        await append(store)
        found = await entries(store)
        await store.close()
        return len(found)

    assert asyncio.run(use()) > 600


def test_no_line_of_hub_toml_is_to_be_changed_before() -> None:
    (text,) = re.findall(r"^## Moving from SQLite\n(.*?)^## ", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)

    assert "leave hub.toml as it is" in text
    assert "```toml" not in text
