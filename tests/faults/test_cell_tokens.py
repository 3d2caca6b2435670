# SPDX-License-Identifier: Apache-2.0
"""Two tokens behind one key profile, two hubs, twenty clients: one token dies under load, and comes back.

Whatever it dies of, nobody is told of an error: what it has not begun is signed by the other one, and what it may have
begun is repeated once its outcome is known to be unknown. How often each token was used is held against the log, and
the log against what the clients were told (`several.judge`).
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.shim_orders import REMOVED, delays, hangs, hangs_after
from postgres_server import PostgresServer
from programs import until
from several.judge import judge_agent
from several.run import Lab, running_lab

pytestmark = pytest.mark.interop

SIGN_MS = 30
#: Twenty clients ask for so many at once: that is more than both tokens have at them and prepared.
ITEMS = 8
#: A call that hangs is noticed so soon.
TOKEN_LINES = "call_seconds = 2.0\nsign_seconds = 2.0\nwatch_seconds = 1.0\n"


def pull_out(lab: Lab) -> None:
    lab.cell.tokens[1].break_with(REMOVED)


def hang_before_c_sign(lab: Lab) -> None:
    lab.cell.tokens[1].break_with(hangs("C_SignInit"))


def hang_in_c_sign(lab: Lab) -> None:
    lab.cell.tokens[1].break_with(hangs("C_Sign"))


def sign_and_hang(lab: Lab) -> None:
    lab.cell.tokens[1].break_with(hangs_after("C_Sign"))


def kill_its_agent(lab: Lab) -> None:
    lab.cell.site.running["agent-1"].kill()
    lab.cell.start_agent(1)


@pytest.mark.parametrize(
    "die", [pull_out, hang_before_c_sign, hang_in_c_sign, sign_and_hang, kill_its_agent], ids=lambda one: one.__name__
)
def test_one_of_two_tokens_dies_under_load(
    postgres: PostgresServer, tmp_path: Path, die: Callable[[Lab], None]
) -> None:
    with running_lab(tmp_path / "cell", postgres, tokens=2, sign_ms=SIGN_MS, token_lines=TOKEN_LINES) as lab:
        first, second = lab.cell.tokens
        with lab.load(items=ITEMS) as load:
            until(first.signed, "a signature by the first token")
            until(second.signed, "a signature by the second token")
            die(lab)
            load.until_all_serve("by the token that is left")
            load.until_all_serve("by the token that is left, again")
            second.break_with(delays("C_Sign", SIGN_MS))
            before = second.signed().total()
            until(lambda: second.signed().total() > before, "a signature by the one that came back", seconds=60)
            load.until_all_serve("after the other came back")
        told = {(item.state, item.code) for one in lab.histories for item in one.items}
        assert told == {("signed", "")}
        judge_agent(lab.cell, tmp_path / "record")
