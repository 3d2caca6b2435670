# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests in which a hub lies; a module asks for them with `pytest_plugins`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from lied_to_agent import Bench, Served, make_software_token, open_bench
from lying_hub import Ask, Trust, make_trust
from privyseal.tokens.factory import open_token


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A software token that the tests of a module share."""
    config, spki = make_software_token(tmp_path_factory.mktemp("token"))
    token = open_token(config)
    yield Served(token=token, spki=spki)
    await token.close()


@pytest.fixture(scope="module")
def trust() -> Trust:
    """The keys of the hub, and the bundle that the agent pinned."""
    return make_trust()


@pytest_asyncio.fixture(loop_scope="module")
async def bench(tmp_path: Path, served: Served, trust: Trust) -> AsyncIterator[Bench]:
    """An agent that serves a traced key profile, and the hub before it."""
    bench = await open_bench(tmp_path, served, trust)
    yield bench
    await bench.journal.close()


@pytest.fixture
def ask(bench: Bench) -> Ask:
    """An enrolled client's request for one signature."""
    return bench.hub.ask(bench.hub.enrol())
