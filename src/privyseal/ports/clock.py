# SPDX-License-Identifier: Apache-2.0
"""Time as a port, so that tests and simulations can own it."""

import time
from collections.abc import Callable

__all__ = ["Clock", "Monotonic", "system_clock"]

#: Milliseconds since the Unix epoch, UTC.
Clock = Callable[[], int]
#: Seconds since some moment; never set, never going back.
Monotonic = Callable[[], float]


def system_clock() -> int:
    """The host's clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
