# SPDX-License-Identifier: Apache-2.0
"""Two tokens behind one key profile, two hubs, twenty clients: one token dies under load, and comes back.

Whatever it dies of, nobody is told of an error: what it has not begun is signed by the other one, and what it may have
begun is repeated once its outcome is known to be unknown. How often each token was used is held against the log, and
the log against what the clients were told (`several.judge`).
"""

from collections.abc import Callable
from pathlib import Path

from lab.shim_orders import delays
from postgres_server import PostgresServer
from programs import until
from several.judge import judge_agent
from several.run import Lab, running_lab

__all__ = ["outlive"]

SIGN_MS = 30
#: Twenty clients ask for so many at once: that is more than both tokens have at them and prepared.
ITEMS = 8
#: A call that hangs is noticed so soon.
TOKEN_LINES = "call_seconds = 2.0\nsign_seconds = 2.0\nwatch_seconds = 1.0\n"


def outlive(postgres: PostgresServer, directory: Path, die: Callable[[Lab], None]) -> None:
    """Have one of two tokens die, and see to it that nobody is told of an error."""
    with running_lab(directory / "cell", postgres, tokens=2, sign_ms=SIGN_MS, token_lines=TOKEN_LINES) as lab:
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
        judge_agent(lab.cell, directory / "record")
