# SPDX-License-Identifier: Apache-2.0
"""Time as a port, so that tests and simulations can own it."""

import time
from collections.abc import Callable

__all__ = ["Clock", "system_clock"]

#: Milliseconds since the Unix epoch, UTC.
Clock = Callable[[], int]


def system_clock() -> int:
    """The host's clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
