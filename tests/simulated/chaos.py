# SPDX-License-Identifier: Apache-2.0
"""Which faults a schedule has: each seed draws some kinds and how often they strike, so that schedules differ."""

import random
from dataclasses import dataclass, field

__all__ = ["FAULTS", "Chaos"]

#: Kinds of fault, and how often one may strike where it can.
FAULTS = {
    "hub killed at a step": 0.15,
    "hub killed between steps": 0.6,
    "agent killed at a step": 0.15,
    "agent killed between steps": 0.6,
    "link cut": 0.8,
    "link cut at a frame": 0.1,
    "no connection": 0.3,
    "call lost": 0.2,
    "answer lost": 0.2,
    "call sent twice": 0.3,
    "client vanishes": 0.15,
    "clock jumps": 0.5,
    "token fails before C_Sign": 0.2,
    "token fails in C_Sign": 0.15,
    "token outcome unknown": 0.3,
    "token hangs": 0.15,
    "hub database takes nothing": 0.1,
    "hub database commit fails": 0.05,
    "hub database commit fails and persists": 0.05,
    "journal takes nothing": 0.1,
    "journal commit fails": 0.05,
    "journal commit fails and persists": 0.05,
}


@dataclass(kw_only=True)
class Chaos:
    """Draws faults while it is `active`, at most `left` more of them."""

    choice: random.Random
    left: int = 0
    active: bool = True
    struck: list[str] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.left = self.choice.choice((0, 1, 1, 2, 3, 5, 8, 13))
        share = self.choice.choice((0.15, 0.3, 0.6))
        self.rates = {
            kind: most * self.choice.choice((0.1, 0.5, 1.0))
            for kind, most in FAULTS.items()
            if self.choice.random() < share
        }

    def strikes(self, kind: str) -> bool:
        """Whether this fault happens here and now."""
        if not self.active or not self.left:
            return False
        rate = self.rates.get(kind)
        if rate is None or self.choice.random() >= rate:
            return False
        self.left -= 1
        self.struck.append(kind)
        return True
