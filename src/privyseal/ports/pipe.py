# SPDX-License-Identifier: Apache-2.0
"""The Pipe port: bytes both ways in order, in pieces, over whatever carries them (a WebSocket, TCP, TLS inside one)."""

from typing import Final, Protocol

__all__ = ["MAX_PIECE_BYTES", "Pipe"]

#: No piece is longer.
MAX_PIECE_BYTES: Final = 65_536


class Pipe(Protocol):
    """One task receives and one sends at a time. A pipe holds a bounded number of bytes: who sends too fast waits."""

    async def send(self, data: bytes) -> None:
        """Send a piece, at most `MAX_PIECE_BYTES`; it returns when there is room for more.

        A call that is cancelled leaves a pipe that can only be closed.

        Raises:
            OSError: the connection broke.
        """
        ...

    async def receive(self) -> bytes:
        """The next piece, as it was sent or in parts; empty at the end.

        Raises:
            OSError: the connection broke.
        """
        ...

    def close(self) -> None:
        """End both ways, soon, without waiting for the other side; also while somebody sends or receives."""
        ...

    async def closed(self) -> None:
        """Wait until nothing of it is left, a few seconds at most; after `close`."""
        ...
