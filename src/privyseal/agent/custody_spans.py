# SPDX-License-Identifier: Apache-2.0
"""Whether nobody else could have used a token between two looks at it. Pure: time and what was seen are arguments.

A span is *proven* only if everything that was looked at speaks for it at both ends; it says what was seen, not what
cannot be: docs/custody.md names what a look cannot see.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

__all__ = ["MAX_GAP_MS", "Interval", "Look", "Moment", "Reason", "judge"]

#: Looks further apart prove nothing of what lay between them.
MAX_GAP_MS: Final = 30_000
#: How far clocks may run apart between two looks without anybody having set one.
_TOLERANCE_MS: Final = 2_000

PROVEN: Final = "proven"
UNPROVEN: Final = "unproven"


class Reason(StrEnum):
    """Why a span is unproven; what stands in the log."""

    SOFTWARE = "software"  #: the token is not hardware: its key can be copied
    SUSPENDED = "suspended"  #: the host slept
    CLOCK = "clock"  #: the host's clock was set
    GAP = "gap"  #: the looks were too far apart
    ABSENT = "absent"  #: the token was not there
    UNHEALTHY = "unhealthy"  #: the token did not answer
    USB_IMPORTED = "usb-imported"  #: the token is attached over the network
    USB_PORT = "usb-port"  #: the token is in another port, or behind another hub or host controller
    CARD_TIMING = "card-timing"  #: the card takes longer to answer than it did
    NETWORK = "network"  #: the host is in another network
    WORKER = "worker"  #: another process of the agent took the token over
    REINSERTED = "reinserted"  #: the card left its reader and came back
    UNWATCHED = "unwatched"  #: it cannot be seen who else is connected to the token
    SHARED = "shared"  #: another program was connected to pcscd
    STOPPED = "stopped"  #: the agent was stopped
    CRASHED = "crashed"  #: the agent or its host ended without a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One moment by three clocks, in milliseconds.

    Attributes:
        wall_ms: Since the epoch, as the host believes; can be set.
        awake_ms: Grows while the host is awake (CLOCK_MONOTONIC).
        boot_ms: Grows while the host sleeps, too (CLOCK_BOOTTIME).
    """

    wall_ms: int
    awake_ms: int
    boot_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of a token at one moment.

    Attributes:
        holder: Changes with the process that holds the token.
        others: Programs besides the agent's that were connected to pcscd; None if nobody can tell.
        card_events: How often a card came or went in its reader; None if nobody can tell.
        moved: By what it may be in another place than the one on record; None if nothing says so.
    """

    moment: Moment
    present: bool
    hardware: bool
    healthy: bool
    holder: int
    others: int | None
    card_events: int | None
    moved: Reason | None = None


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Adjacent spans of one state and reason, in milliseconds since the epoch by the agent's clock."""

    since_ms: int
    until_ms: int
    reason: str

    @property
    def state(self) -> str:
        """`proven` or `unproven`."""
        return UNPROVEN if self.reason else PROVEN


def judge(before: Look, after: Look) -> Reason | None:
    """Why the span between two looks is unproven; None if it is proven."""
    if not (before.hardware and after.hardware):
        return Reason.SOFTWARE
    if (moved := after.moved or before.moved) is not None:
        return moved  # also of the time that a token was away or nobody looked, until a person accepts its place
    if (reason := _time(before.moment, after.moment)) is not None:
        return reason
    if not (before.present and after.present):
        return Reason.ABSENT
    if not (before.healthy and after.healthy):
        return Reason.UNHEALTHY
    return _company(before, after)


def _time(before: Moment, after: Moment) -> Reason | None:
    boot_ms = after.boot_ms - before.boot_ms
    if boot_ms - (after.awake_ms - before.awake_ms) > _TOLERANCE_MS:
        return Reason.SUSPENDED
    if abs(after.wall_ms - before.wall_ms - boot_ms) > _TOLERANCE_MS:
        return Reason.CLOCK
    return Reason.GAP if boot_ms > MAX_GAP_MS else None


def _company(before: Look, after: Look) -> Reason | None:
    if before.holder != after.holder:
        return Reason.WORKER
    seen = (before.others, after.others, before.card_events, after.card_events)
    if None in seen:
        return Reason.UNWATCHED
    if before.card_events != after.card_events:
        return Reason.REINSERTED
    return Reason.SHARED if before.others or after.others else None
