# SPDX-License-Identifier: Apache-2.0
"""How long a question to the hub takes, over a connection that stands."""

import time
from collections.abc import Callable
from typing import Final

__all__ = ["round_trip_seconds"]

_TRIES: Final = 3


def round_trip_seconds(ask: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> float:
    """The shortest time that a question took; `ask` asks one, and has opened the connection before.

    It is more than the network's round trip, by what the hub does for its answer, and says nothing of the way from the
    hub to an agent.
    """
    times = []
    for _ in range(_TRIES):
        began_s = clock()
        ask()
        times.append(clock() - began_s)
    return min(times)
