# SPDX-License-Identifier: Apache-2.0
"""A hub or the agent ends at its n-th effect. Some n here; all of them in `make soak`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cell_site import LEASE_SECONDS
from postgres_server import PostgresServer
from several.judge import judge_agent
from several.kills import EFFECTS, cut_at_statement, kill_at
from several.run import LONGER_SECONDS, Lab, passes, running_lab

pytestmark = pytest.mark.interop

#: A request is accepted with the first commit, claimed with the second; with the third it is settled.
CHOSEN = (
    ("hub, before a commit", 3),
    ("hub, after a commit", 2),
    ("hub, after a message", 1),
    ("agent, before an answer", 1),
)
#: Some of a request that is accepted, claimed, sent to the agent, and settled.
STATEMENTS = (10, 20, 32, 35, 38, 41)


@pytest.fixture(scope="module")
def lab(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("kills") / "cell", postgres) as lab:
        yield lab


def test_ends_at_an_effect(lab: Lab) -> None:
    for name, number in CHOSEN:
        assert kill_at(lab, EFFECTS[name], number), f"{name}: there is no number {number}"
    lab.judge()


def test_the_database_is_lost_at_a_statement(lab: Lab) -> None:
    """Asking again is enough: no hub gives up signing until it is started again."""
    lab.both_serve()

    for number in STATEMENTS:
        assert cut_at_statement(lab, number)

    assert [one["event"] for hub in lab.cell.hubs.values() for one in hub.events if one["level"] == "critical"] == []
    lab.judge()


def test_what_a_lost_hub_left_is_settled_by_one_that_had_the_token_before(lab: Lab, tmp_path: Path) -> None:
    """Both have had the lease, and the one that has it no longer has not been told: nobody asked it for anything."""
    lab.both_serve()
    for _ in range(2):
        lab.sign()
        passes(LONGER_SECONDS)

    assert kill_at(lab, EFFECTS["hub, before it hears"], 1)

    assert lab.histories[-1].seconds < 5 * LEASE_SECONDS
    lab.judge()
    judge_agent(lab.cell, tmp_path / "record")
