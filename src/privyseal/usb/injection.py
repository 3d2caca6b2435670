# SPDX-License-Identifier: Apache-2.0
"""What a tap lets the client read from an endpoint in the device's place."""

from collections import deque
from typing import Final

__all__ = ["Injections"]

#: More than one answer for each command that may be in flight makes no sense.
_MOST_BYTES: Final = 1 << 20


class Injections:
    """Payloads by endpoint, in order; each is read once, by as many transfers as it needs."""

    def __init__(self) -> None:
        self._waiting: dict[int, deque[bytes]] = {}
        self._bytes = 0

    def add(self, address: int, payload: bytes) -> None:
        """Let this be read next, behind what waits there already.

        Raises:
            ValueError: Nobody reads what waits.
        """
        self._bytes += len(payload)
        if self._bytes > _MOST_BYTES or not payload:
            raise ValueError("a tap answers with nothing, or with more than anybody reads")
        self._waiting.setdefault(address, deque()).append(payload)

    def has(self, address: int) -> bool:
        """Whether something waits at this endpoint."""
        return bool(self._waiting.get(address))

    def take(self, address: int, length: int) -> bytes:
        """What a transfer of this length reads; to be asked where something waits."""
        waiting = self._waiting[address]
        payload = waiting.popleft()
        if len(payload) > length:
            waiting.appendleft(payload[length:])
        taken = payload[:length]
        self._bytes -= len(taken)
        return taken
