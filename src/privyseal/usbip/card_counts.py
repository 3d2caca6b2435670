# SPDX-License-Identifier: Apache-2.0
"""The counts of a lease while it runs."""

from collections import Counter
from collections.abc import Iterable

from privyseal.usbip.card_events import (
    Blind,
    CardEvent,
    Initialisation,
    KeyGeneration,
    LeaseEnds,
    PinChange,
    PinVerification,
    PrivateKeyOperation,
    Tally,
    Unproven,
)

__all__ = ["Counting"]


class Counting:
    """Takes each event once. Its memory is bounded by the number of different outcomes and reasons."""

    def __init__(self) -> None:
        self._tallies: Counter[tuple[str, str, str]] = Counter()
        self._unproven: dict[Blind, None] = {}
        self.refused = 0
        self.command_bytes = 0
        self.answer_bytes = 0

    def take(self, events: Iterable[CardEvent]) -> tuple[CardEvent, ...]:
        """Count them; they come back without what was told before."""
        return tuple(event for event in events if self._is_news(event))

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """See `LeaseCounts`."""
        return tuple(
            Tally(what=what, kind=kind, outcome=outcome, count=count)
            for (what, kind, outcome), count in sorted(self._tallies.items())
        )

    @property
    def unproven(self) -> tuple[Blind, ...]:
        """See `LeaseCounts`."""
        return tuple(self._unproven)

    def _is_news(self, event: CardEvent) -> bool:
        match event:
            case Unproven(reason=reason):
                is_news = reason not in self._unproven
                self._unproven[reason] = None
                return is_news
            case PrivateKeyOperation(use=use, outcome=outcome):
                self._tallies["private-key-operation", use, outcome] += 1
            case PinVerification(outcome=pin_outcome):
                self._tallies["pin-verification", "", pin_outcome] += 1
            case KeyGeneration(outcome=outcome):
                self._tallies["key-generation", "", outcome] += 1
            case PinChange(outcome=outcome):
                self._tallies["pin-change", "", outcome] += 1
            case Initialisation(write=write, outcome=outcome):
                self._tallies["initialisation", write, outcome] += 1
            case LeaseEnds():
                pass
        return True
