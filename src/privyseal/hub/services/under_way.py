# SPDX-License-Identifier: Apache-2.0
"""What is at a token or prepared for it, and how fast that token is."""

import asyncio
from dataclasses import dataclass
from typing import Final

from privyseal.hub.services.claiming import BATCH_ITEMS, Batch
from privyseal.policy.fair_queue import Priority

__all__ = ["Pace", "UnderWay"]

#: So much of the token's time is prepared at once: long enough for commits to be shared, short enough to be taken back.
_AHEAD_SECONDS: Final = 1.0
#: Items of the first batch, before anything was measured.
_UNMEASURED_ITEMS: Final = 8
#: How much a new measurement counts beside those before it.
_NEWEST: Final = 0.2
#: Where a higher class has just come, more of it may come: lower ones are prepared in small batches for a while.
_CAREFUL_SECONDS: Final = 10.0
_CAREFUL_ITEMS: Final = 2


@dataclass(slots=True, kw_only=True)
class UnderWay:
    """A batch that was sent, or is about to be.

    Attributes:
        open_items: How many of its items have no answer yet.
        recalled: Something of it was asked back: items that come unused are no sign of trouble.
        gives_way: All that the token has not begun of it was asked back, for a higher class.
    """

    batch: Batch
    priority: Priority
    open_items: int
    recalled: bool = False
    gives_way: bool = False


class Pace:
    """Measured times of one token.

    Attributes:
        seconds_per_item: From one signature to the next while it was busy; 0 before the first.
    """

    def __init__(self) -> None:
        self.seconds_per_item = 0.0
        self._since_s: float | None = None
        self._careful_below = Priority.NIGHTLY
        self._careful_until_s = 0.0

    def begin(self) -> None:
        """Something was sent to a token that had nothing to do."""
        self._since_s = asyncio.get_running_loop().time()

    def measure(self, signed: int) -> None:
        """So many signatures came since the last time."""
        now_s = asyncio.get_running_loop().time()
        if signed and self._since_s is not None:
            seconds = (now_s - self._since_s) / signed
            known = self.seconds_per_item
            self.seconds_per_item = seconds if not known else known + _NEWEST * (seconds - known)
        self._since_s = now_s

    def disturbed(self, priority: Priority) -> None:
        """For this class, lower ones were taken back."""
        self._careful_below = priority
        self._careful_until_s = asyncio.get_running_loop().time() + _CAREFUL_SECONDS

    def room(self, priority: Priority) -> int:
        """How many items of a class are prepared at once."""
        if priority < self._careful_below and asyncio.get_running_loop().time() < self._careful_until_s:
            return _CAREFUL_ITEMS
        if not self.seconds_per_item:
            return _UNMEASURED_ITEMS
        return max(1, min(BATCH_ITEMS, int(_AHEAD_SECONDS / self.seconds_per_item)))
