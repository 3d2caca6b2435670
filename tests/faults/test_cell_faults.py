# SPDX-License-Identifier: Apache-2.0
"""Several hubs under twenty clients, while programs freeze, the database crashes, and a hub's clock jumps."""

import datetime as dt
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgres_server import PostgresServer
from several.clock import FakeClock
from several.judge import judge_agent
from several.run import LONGER_SECONDS, Lab, passes, running_lab

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def lab(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("cell-faults") / "cell", postgres) as lab:
        yield lab


def test_a_hub_whose_clock_jumps(lab: Lab, tmp_path: Path) -> None:
    """Leases go by the database's clock: neither does it lose its token early, nor keep it from others."""
    clock = FakeClock(tmp_path / "clock")
    number = 0
    lab.cell.hubs[number].stop()
    lab.cell.start(number, more=clock.environment)
    lab.both_serve()
    with lab.load() as load:
        for seconds in (90, -90):
            clock.jump(seconds)
            load.until_all_serve(f"with a hub whose clock is {seconds} s off")
            assert lab.sign(first=number).failure is None
            said = dt.datetime.fromisoformat(lab.cell.hubs[number].events[-1]["timestamp"])
            assert abs((said - dt.datetime.now(dt.UTC)).total_seconds() - seconds) < 30
    judge_agent(lab.cell, tmp_path / "record")


def test_frozen_longer_than_a_lease_and_a_database_that_crashes(lab: Lab, tmp_path: Path) -> None:
    with lab.load() as load:
        for running in (lab.agent, lab.cell.hubs[lab.find_holder()]):
            running.signal(signal.SIGSTOP)
            passes(LONGER_SECONDS)
            running.signal(signal.SIGCONT)
            load.until_all_serve("after what was frozen goes on")
        lab.postgres.stop()
        lab.postgres.start()
        load.until_all_serve("after the database crashed")
    judge_agent(lab.cell, tmp_path / "record")
