# SPDX-License-Identifier: Apache-2.0
"""An agent whose disk fills up while the token is at work loses no signature."""

from pathlib import Path

import pytest

from failing_journal import Faults
from lied_to_agent import Served, open_bench
from lying_hub import Trust
from privyseal.ports.journal import OutcomeState

pytest_plugins = ["lying_hub_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_signature_reaches_the_hub_also_if_it_cannot_be_written_down(
    tmp_path: Path, served: Served, trust: Trust
) -> None:
    faults = Faults()
    bench = await open_bench(tmp_path, served, trust, connect=faults.connect)
    faults.fail_at = "INSERT INTO operation_end"
    await bench.signs(bench.hub.job(bench.hub.ask(bench.hub.enrol())))

    faults.fail_at = ""
    (begun,) = await bench.journal.entries(0, 10)
    outcome = await bench.journal.outcome(begun.request_id, begun.item, begun.fence)
    assert outcome is not None
    assert outcome.state is OutcomeState.BEGUN, "the hub has it on record; nobody here can say more"
    await bench.journal.close()
