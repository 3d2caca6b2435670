# SPDX-License-Identifier: Apache-2.0
"""What an export counts, in bounded memory."""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["RoundTrips", "SessionStatistics"]

#: Parts of each doubling: a percentile is right to a sixteenth.
_PARTS: Final = 16
_DOUBLINGS: Final = 40


class RoundTrips:
    """Durations in microseconds, as a histogram whose buckets grow with the duration."""

    def __init__(self) -> None:
        self._counts = [0] * (_DOUBLINGS * _PARTS)
        self._count = 0
        self._largest_us = 0

    def add(self, microseconds: int) -> None:
        """Count one."""
        self._counts[_bucket(microseconds)] += 1
        self._count += 1
        self._largest_us = max(self._largest_us, microseconds)

    @property
    def count(self) -> int:
        """How many."""
        return self._count

    def percentile_us(self, percent: float) -> int:
        """The duration that so many percent do not exceed, in microseconds, right to a sixteenth; 0 if none was."""
        wanted = self._count * percent / 100
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(_ceiling(bucket), self._largest_us)
        return self._largest_us


def _bucket(microseconds: int) -> int:
    if microseconds < _PARTS:
        return max(microseconds, 0)
    shift = microseconds.bit_length() - _PARTS.bit_length()
    return min(shift * _PARTS + (microseconds >> shift), _DOUBLINGS * _PARTS - 1)


def _ceiling(bucket: int) -> int:
    shift = max(bucket // _PARTS - 1, 0)
    return ((bucket - shift * _PARTS + 1) << shift) - 1


@dataclass(slots=True, kw_only=True)
class SessionStatistics:
    """Of one export.

    Attributes:
        urbs: Submitted by the client.
        bytes_in, bytes_out: Data from and to the device.
        errors: URBs that the device or this host answered with an error; stalls count.
        cancelled: URBs that the client did not want any more, and that were given up.
        answered_by_tap: URBs that the device did not get.
        round_trips: From here to the device and back, of control and bulk transfers that succeeded. Interrupt
            transfers wait for something to happen, and are not counted.
    """

    urbs: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    errors: int = 0
    cancelled: int = 0
    answered_by_tap: int = 0
    round_trips: RoundTrips = field(default_factory=RoundTrips)
