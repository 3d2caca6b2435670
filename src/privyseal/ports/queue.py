# SPDX-License-Identifier: Apache-2.0
"""What waits, as a store counts it."""

from dataclasses import dataclass

__all__ = ["Queue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What stands before a key profile's token.

    Attributes:
        queued, under_way: Jobs in state QUEUED and INTENT.
        oldest_ms: When the request of the first queued job was made, by its client's clock; None if none is queued.
    """

    profile: str
    queued: int
    under_way: int
    oldest_ms: int | None
