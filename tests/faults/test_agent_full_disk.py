# SPDX-License-Identifier: Apache-2.0
"""An agent whose disk fills up while the token is at work loses no signature."""

import pytest

from failing_journal import Faults
from lied_to_agent import Bench
from lying_hub import Ask
from privyseal.ports.journal import OutcomeState
from privyseal.storage.journal import SqliteJournal

pytest_plugins = ["lying_hub_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_signature_reaches_the_hub_also_if_it_cannot_be_written_down(bench: Bench, ask: Ask) -> None:
    faults = Faults()
    journal = await SqliteJournal.open(":memory:", origin=bench.trust.bundle.origin, connect=faults.connect)
    bench.executor._journal = journal
    faults.fail_at = "INSERT INTO operation_end"
    await bench.signs(bench.hub.job(ask))

    faults.fail_at = ""
    (begun,) = await journal.entries(0, 10)
    outcome = await journal.outcome(begun.request_id, begun.item, begun.fence)
    assert outcome is not None
    assert outcome.state is OutcomeState.BEGUN, "the hub has it on record; nobody here can say more"
    await journal.close()
