# SPDX-License-Identifier: Apache-2.0
"""When a token that does not answer gets every help again: after five minutes, then ever more rarely."""

from typing import Final

__all__ = ["ClimbPauses"]

_FIRST_SECONDS: Final = 300.0
_MAX_SECONDS: Final = 86_400.0


class ClimbPauses:
    """The pauses between two climbs of the recovery ladder for one token."""

    def __init__(self) -> None:
        self._until_s = 0.0
        self._seconds = _FIRST_SECONDS

    def begin(self, now_s: float) -> None:
        """It has stopped to answer, and was helped in vain."""
        self._seconds = _FIRST_SECONDS
        self._until_s = now_s + self._seconds

    def is_over(self, now_s: float) -> bool:
        """Whether it is helped again now; if so, the next pause begins, twice as long and at most a day."""
        if now_s < self._until_s:
            return False
        self._until_s = now_s + self._seconds
        self._seconds = min(2 * self._seconds, _MAX_SECONDS)
        return True
