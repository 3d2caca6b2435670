# SPDX-License-Identifier: Apache-2.0
"""Numbers of a channel: those that it goes by, and those that it tells."""

from dataclasses import dataclass
from typing import Final

from privyseal.wire.relay import HEAD_BYTES, MAX_DATA_BYTES

__all__ = ["MAX_GRACE_SECONDS", "ChannelLimits", "ChannelStatistics"]

MAX_GRACE_SECONDS: Final = 30.0
#: Two messages of the largest size: less would make a writer wait for an answer that nobody has to give.
_LEAST_WINDOW_BYTES: Final = 2 * (MAX_DATA_BYTES + HEAD_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """Numbers of a channel; both sides go by their own.

    Attributes:
        heartbeat_seconds: From one ping to the next.
        silent_seconds: A peer of which nothing came for so long is lost.
        grace_seconds: How long a lost connection may be made up for; 0 for not at all, at most 30.
        again_seconds: From one try to reconnect to the next.
        close_seconds: How long the last words may take at the end.
        window_bytes: How much one side may have sent that the other has not read; so much is kept on each side, too.
    """

    heartbeat_seconds: float = 2.5
    silent_seconds: float = 10.0
    grace_seconds: float = 0.0
    again_seconds: float = 0.25
    close_seconds: float = 2.0
    window_bytes: int = 262_144

    def __post_init__(self) -> None:
        if not 0 <= self.grace_seconds <= MAX_GRACE_SECONDS:
            raise ValueError(f"grace_seconds is 0 to {MAX_GRACE_SECONDS}")
        if not 0 < self.heartbeat_seconds < self.silent_seconds or self.window_bytes < _LEAST_WINDOW_BYTES:
            raise ValueError("a channel's limits make no sense")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatistics:
    """How a channel goes.

    Attributes:
        sent_bytes, received_bytes: Of the stream, by this side's application.
        rtt_min_seconds, rtt_p50_seconds: Of the last 64 heartbeats that were answered; None before the first.
        reconnected: How often another connection took the place of one that was lost.
    """

    sent_bytes: int
    received_bytes: int
    rtt_min_seconds: float | None
    rtt_p50_seconds: float | None
    reconnected: int
