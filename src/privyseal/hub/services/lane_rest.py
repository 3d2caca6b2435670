# SPDX-License-Identifier: Apache-2.0
"""A lane's pauses: an agent that hands everything back must not fill the log with intents."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from privyseal.hub.jobs import is_requeued
from privyseal.wire.jobs import ItemDone, ItemRefused

__all__ = ["Rest"]

_FIRST_SECONDS: Final = 0.05
_MAX_SECONDS: Final = 30.0


class Rest:
    """Longer with each time that items come back unused, over with the first that is signed.

    Attributes:
        active: Whether nothing is to be claimed now.
    """

    def __init__(self, over: Callable[[], None]) -> None:
        """`over` is called when a pause ends."""
        self._over: Final = over
        self._times = 0
        self.active = False

    def room(self, items: int) -> int:
        """How many items to try it with, of so many that could be prepared."""
        return 1 if self._times else items

    def settled(self, answers: Iterable[ItemDone | ItemRefused]) -> None:
        """What an agent answered was written down."""
        told = tuple(answers)
        if any(isinstance(answer, ItemDone) for answer in told):
            self._times = 0
        elif any(is_requeued(answer) for answer in told) and not self.active:
            self.active = True
            seconds = min(_FIRST_SECONDS * 2**self._times, _MAX_SECONDS)
            self._times = min(self._times + 1, 16)
            asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        self.active = False
        self._over()
