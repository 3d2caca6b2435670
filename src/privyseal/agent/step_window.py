# SPDX-License-Identifier: Apache-2.0
"""Steps of the recovery ladder on record without filling it: a minute's first ones each, the rest counted. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

__all__ = ["Step", "StepWindow"]

_MINUTE_SECONDS: Final = 60.0
_EACH: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, as the entry has it; see `privyseal.tlog.agent_entries.Recover`."""

    step: str
    code: str
    function: str
    ckr: int
    outcome: str


@dataclass(slots=True)
class StepWindow:
    """What is told of one token's steps, and when."""

    _since_s: float = float("-inf")
    _told: int = 0
    _counted: Counter[Step] = field(default_factory=Counter)

    def took(self, step: Step, now_s: float) -> tuple[tuple[Step, int], ...]:
        """A step was taken: what is to be told now, with how many it stands for."""
        due = self.due(now_s)
        if now_s - self._since_s >= _MINUTE_SECONDS:
            self._since_s, self._told = now_s, 0
        if self._told < _EACH:
            self._told += 1
            return (*due, (step, 1))
        self._counted[step] += 1
        return due

    def due(self, now_s: float) -> tuple[tuple[Step, int], ...]:
        """What was only counted, once its minute is over."""
        if now_s - self._since_s < _MINUTE_SECONDS or not self._counted:
            return ()
        counted, self._counted = tuple(self._counted.items()), Counter()
        return counted
