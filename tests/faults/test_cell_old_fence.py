# SPDX-License-Identifier: Apache-2.0
"""A hub that comes back with an old fence: what it sends late, and what it writes late, changes nothing."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postgres_server import PostgresServer
from several.clients import History
from several.judge import account_of, judge_agent
from several.kills import is_commit
from several.proxy import Proxy, Trap
from several.run import Lab, running_lab

pytestmark = pytest.mark.interop

#: Longer than a word about a lease, shorter than any job and any answer with a signature.
JOB_BYTES = 300


@pytest.fixture(scope="module")
def lab(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("fences") / "cell", postgres) as lab:
        yield lab


def is_job_or_answer(record: bytes) -> bool:
    return record[0] == 23 and len(record) > JOB_BYTES


def frozen_at(lab: Lab, way: Proxy, direction: str, counts: Callable[[bytes], bool]) -> History:
    """The hub that has the token freezes when this is under way, which is held back; the other one serves all."""
    holder = lab.find_holder()
    client = lab.client(first=1 - holder)
    history = lab.ask(client, items=3)

    def freeze() -> None:
        lab.cell.hubs[holder].signal(signal.SIGSTOP)
        way.silence_within(direction)

    trap = way.trap = Trap(direction=direction, counts=counts, number=1, do=freeze)
    client.send(history)
    way.trap = None
    assert trap.sprung.is_set()
    assert history.failure is None
    return history


def entries_of(lab: Lab, history: History) -> list[int]:
    account = account_of(lab.cell)
    return [index for index, intent in account.intents.items() if intent.request == history.request_id]


def comes_back(lab: Lab, holder: int) -> None:
    """It goes on, hears and sends what was held back, and serves again."""
    lab.cell.hubs[holder].signal(signal.SIGCONT)
    lab.ways[holder].heal()
    lab.both_serve()
    lab.sign(first=holder)


def test_a_late_answer_is_not_written_down_again(lab: Lab) -> None:
    holder = lab.find_holder()
    history = frozen_at(lab, lab.ways[holder].link, "there", is_job_or_answer)
    before = entries_of(lab, history)

    comes_back(lab, holder)

    assert entries_of(lab, history) == before
    lab.judge()


def test_a_late_job_is_not_begun(lab: Lab) -> None:
    holder = lab.find_holder()
    frozen_at(lab, lab.ways[holder].link, "back", is_job_or_answer)
    used = lab.cell.token.signed()

    comes_back(lab, holder)

    refused = [one["code"] for one in lab.agent.events if one["event"] == "job refused"]
    assert set(refused) <= {"job.stale_fence", "job.checkpoint_behind"}
    assert refused
    assert used.items() <= lab.cell.token.signed().items()
    lab.judge()


def test_a_late_commit_is_the_other_hubs_business_no_longer_than_a_lock_is_waited_for(lab: Lab, tmp_path: Path) -> None:
    """Frozen with the log's lock: the database gives the lock to others, and what was about to be written is undone."""
    holder = lab.find_holder()
    history = frozen_at(lab, lab.ways[holder].database, "there", is_commit)
    assert history.seconds < 20

    comes_back(lab, holder)

    lab.judge()
    judge_agent(lab.cell, tmp_path / "record")
