# SPDX-License-Identifier: Apache-2.0
"""Two tokens behind one key profile, two hubs, twenty clients: one token dies under load, and comes back."""

from pathlib import Path

import pytest

from lab.shim_orders import REMOVED, delays
from postgres_server import PostgresServer
from programs import until
from several.judge import judge_agent
from several.run import running_lab

pytestmark = pytest.mark.interop

#: What was on its way to the token that died ends with the token's own words: its client asks again. The rest goes on.
LOST, MOST_LOST = "token.not_found", 40


def test_one_of_two_tokens_dies_under_load(postgres: PostgresServer, tmp_path: Path) -> None:
    with running_lab(tmp_path / "cell", postgres, tokens=2) as lab:
        first, second = lab.cell.tokens
        with lab.load(may_fail={LOST}) as load:
            until(first.signed, "a signature by the first token")
            until(second.signed, "a signature by the second token")
            second.break_with(REMOVED)
            load.until_all_serve("by the token that is left")
            load.until_all_serve("by the token that is left, again")
            second.break_with(delays("C_Sign", 30))
            load.until_all_serve("after the other came back")
        failed = [item for one in lab.histories for item in one.items if item.state != "signed"]
        assert len(failed) <= MOST_LOST
        judge_agent(lab.cell, tmp_path / "record")
