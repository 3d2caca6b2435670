# SPDX-License-Identifier: Apache-2.0
"""Several hubs under twenty clients, while ways between them, the agent and the database are broken for a time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from postgres_server import PostgresServer
from several.judge import judge, judge_agent
from several.proxy import Ways
from several.run import BOUND_SECONDS, LONGER_SECONDS, Lab, passes, running_lab

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def lab(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("partitions") / "cell", postgres) as lab:
        yield lab


PARTITIONS: dict[str, Callable[[Ways], None]] = {
    "nothing comes from the agent": lambda ways: ways.link.silence("back"),
    "nothing goes to the agent": lambda ways: ways.link.silence("there"),
    "no way to the database": lambda ways: ways.database.cut(),
    "clients hear nothing": lambda ways: ways.clients.silence("back"),
}


def test_partitions_of_the_hub_that_has_the_token(lab: Lab, tmp_path: Path) -> None:
    with lab.load() as load:
        for name, broken in PARTITIONS.items():
            ways = lab.ways[lab.find_holder()]
            broken(ways)
            passes(LONGER_SECONDS)
            ways.heal()
            load.until_all_serve(f"after {name}")
    judge_agent(lab.cell, tmp_path / "record")


def test_the_judge_can_say_no(lab: Lab) -> None:
    """A request that nobody kept, one that waited too long, one that was told another's signature."""
    first, second = lab.sign(items=2), lab.sign()
    others = [one for one in lab.histories if one not in (first, second)]
    swapped = replace(first, items=[*reversed(first.items)])

    for histories, bound_seconds in (
        ([*others, first], BOUND_SECONDS),
        ([*others, first, second], 0.0),
        ([*others, swapped, second], BOUND_SECONDS),
        ([*others, replace(first, items=first.items[:1]), second], BOUND_SECONDS),
        ([*others, replace(first, ended_s=None), second], BOUND_SECONDS),
    ):
        assert judge(lab.cell, histories, bound_seconds=bound_seconds)
    lab.judge()
