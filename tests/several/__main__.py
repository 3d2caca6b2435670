# SPDX-License-Identifier: Apache-2.0
"""The whole sweep (`make soak`): every effect at which a hub or the agent can end, and every way that can break.

python -m several --only crowd
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cell_site import LEASE_SECONDS
from postgres_server import PostgresServer, running_postgres
from several.crowd import crowd
from several.failover import fail_over, running_standby
from several.kills import EFFECTS, Effect, cut_at_statement, kill_at
from several.proxy import BOTH
from several.run import LONGER_SECONDS, Lab, passes, running_lab

_MOST_EFFECTS = 40
_MOST_STATEMENTS = 120
_CROWD = 1000
_ROUNDS = 3
#: How much more a hub may need after a second crowd than after the first.
_MOST_GROWTH = 1.3


def kill_at_each(lab: Lab, effect: Effect) -> str:
    """Until there is no further one."""
    number = 0
    while number < _MOST_EFFECTS and kill_at(lab, effect, number + 1):
        number += 1
    return f"at each of {number}"


def cut_at_each_statement(lab: Lab, after: ExitStack) -> str:
    """The hub that has the token is cut off its database at each statement of a request."""
    number = 0
    while number < _MOST_STATEMENTS and cut_at_statement(lab, number + 1):
        number += 1
    return f"at each of {number} statements"


def break_each_way(lab: Lab, after: ExitStack) -> str:
    """Each way of each hub, in each direction and in both, silent and cut, for different times."""
    count = 0
    with lab.load() as load:
        for name in ("database", "link", "clients"):
            for number in range(len(lab.ways)):
                way = getattr(lab.ways[number], name)
                for directions in (("there",), ("back",), BOTH, ()):
                    way.silence(*directions) if directions else way.cut()
                    passes(LONGER_SECONDS + LEASE_SECONDS * count % 3)
                    way.heal()
                    load.until_all_serve(f"after {name} {number} {directions}", seconds=90)
                    count += 1
        for ways in lab.ways:
            for way in ways.all:
                way.delay_seconds = 0.005
        load.until_all_serve("over slow ways", seconds=120)
        for ways in lab.ways:
            for way in ways.all:
                way.delay_seconds = 0.0
    return f"{count} partitions"


def lose_the_database(lab: Lab, after: ExitStack) -> str:
    """For good, under load; the standby stays until the lab has ended."""
    standby = after.enter_context(running_standby(lab.postgres))
    with lab.load() as load:
        fail_over(lab, standby)
        load.until_all_serve("after the standby took over", seconds=90)
    return "the standby took over"


def crash_the_database(lab: Lab, after: ExitStack) -> str:
    with lab.load() as load:
        for _ in range(_ROUNDS):
            lab.postgres.stop()
            lab.postgres.start()
            load.until_all_serve("after the database crashed", seconds=90)
    return f"{_ROUNDS} crashes"


def come_at_once(lab: Lab, after: ExitStack) -> str:
    first, second = crowd(lab, _CROWD, patience_seconds=300.0)
    assert max(second) < max(first) * _MOST_GROWTH, (first, second)
    return f"{_CROWD} clients, hubs at {max(first):.0f} MiB, and {max(second):.0f} MiB the second time"


SWEEPS: dict[str, Callable[[Lab, ExitStack], str]] = {
    **{name: lambda lab, _, effect=effect: kill_at_each(lab, effect) for name, effect in EFFECTS.items()},  # type: ignore[misc]
    "statements": cut_at_each_statement,
    "partitions": break_each_way,
    "crashes of the database": crash_the_database,
    "failover": lose_the_database,
    "crowd": come_at_once,
}


def run(name: str, folder: Path, postgres: PostgresServer) -> bool:
    """Whether all of it holds."""
    began_s, crowded = time.monotonic(), name == "crowd"
    place, sign_ms = folder / name.replace(" ", "-"), 1 if crowded else 30
    with ExitStack() as after, running_lab(place, postgres, sign_ms=sign_ms) as lab:
        told = SWEEPS[name](lab, after)
        wrong = lab.judged(bound_seconds=300.0 if crowded else 90.0)
        print(f"{name}: {told}; {lab.told}; {time.monotonic() - began_s:.0f} s", flush=True)
    for line in wrong[:20]:
        print(f"WRONG: {line}", flush=True)
    return not wrong


def main() -> int:
    """0 if every account agrees."""
    parser = argparse.ArgumentParser(prog="python -m several")
    parser.add_argument("--only", default="", help="a part of the name of what is done")
    chosen = parser.parse_args()
    os.environ["CI"] = "true"  # what is missing is said, and not skipped
    ended = []
    for name in SWEEPS:
        if chosen.only in name:
            with running_postgres() as postgres, tempfile.TemporaryDirectory(prefix="privyseal-several-") as folder:
                ended.append(run(name, Path(folder), postgres))
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
