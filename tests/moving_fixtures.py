# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that move a hub to PostgreSQL; a module asks for them with `pytest_plugins`."""

import asyncio
import shutil
from pathlib import Path

import pytest

from moving import Move
from postgres_server import PostgresServer
from stopped_hub import made_hub


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(made_hub(tmp_path_factory.mktemp("move") / "hub"))


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    return asyncio.run(postgres.make_database())


@pytest.fixture
async def move(template: Path, tmp_path: Path, postgres: PostgresServer, database: str) -> Move:
    # Emptied, not made anew: a database is 300 files.
    await postgres.execute("DROP SCHEMA public CASCADE", database)
    await postgres.execute("CREATE SCHEMA public", database)
    directory = tmp_path / "hub"
    shutil.copytree(template, directory)
    return Move(directory=directory, server=postgres, database=database)
