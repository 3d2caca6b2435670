# SPDX-License-Identifier: Apache-2.0
"""The pauses between an agent's dials. Pure: whoever dials draws the random number, and waits."""

from typing import Final

__all__ = ["Backoff"]

_FIRST_SECONDS: Final = 0.5
#: A hub has few agents, and without one it has no token: they can afford to come back soon.
_LONGEST_SECONDS: Final = 5.0


class Backoff:
    """Doubles from half a second to five."""

    def __init__(self) -> None:
        self._bound_seconds = _FIRST_SECONDS

    def draw(self, fraction: float) -> float:
        """The next pause in seconds, from half of its bound up to it.

        Args:
            fraction: A random number from 0 to 1, so that agents that lost their hub at one moment come back at others.
        """
        seconds = self._bound_seconds * (1 + fraction) / 2
        self._bound_seconds = min(self._bound_seconds * 2, _LONGEST_SECONDS)
        return seconds

    def begin_anew(self) -> None:
        """What was dialled stood for a while."""
        self._bound_seconds = _FIRST_SECONDS
