# SPDX-License-Identifier: Apache-2.0
"""What of a channel must arrive, on both sides: numbered by its bytes, kept until the other side has it, bounded.

No input or output, no clock. A channel (`relay/channel.py`) carries it over one connection after the other.
"""

from collections import deque
from typing import Final

from privyseal.wire.relay import HEAD_BYTES, MAX_DATA_BYTES, Data, End, Notice, Progress, encode, malformed

__all__ = ["RESERVE_BYTES", "Arriving", "Leaving", "size_of"]

#: What may be under way beyond the window, so that a notice and the end need not wait for a reader.
RESERVE_BYTES: Final = 131_072


def size_of(message: Data | Notice | End) -> int:
    """How many bytes a numbered message counts."""
    return HEAD_BYTES + len(message.data) if isinstance(message, Data) else len(encode(message))


class Leaving:
    """What this side has said.

    Attributes:
        end: Bytes that were said so far.
        ended: Whether `End` was said.
    """

    def __init__(self, window_bytes: int) -> None:
        """`window_bytes` is how much may be under way that the other side has not consumed."""
        self._window_bytes: Final = window_bytes
        #: Not received by the other side yet, as far as is known; the first `_sent` of them were sent.
        self._kept: deque[bytes] = deque()
        self._sent = 0
        #: Where what is kept begins, and where what was sent over this connection ends.
        self._begin = self._sent_end = 0
        self._consumed = 0
        self.end = 0
        self.ended = False

    @property
    def held_bytes(self) -> int:
        """How much is kept."""
        return self.end - self._begin

    @property
    def pending(self) -> bool:
        """Whether something was not sent yet."""
        return self._sent < len(self._kept)

    def has_room(self, message: Data | Notice | End) -> bool:
        """Whether it may be said now."""
        limit = self._window_bytes + (0 if isinstance(message, Data) else RESERVE_BYTES)
        return self.end + size_of(message) - self._consumed <= limit

    def say(self, message: Data | Notice | End) -> None:
        """Say it; there must be room."""
        encoded = encode(message)
        self._kept.append(encoded)
        self.end += len(encoded)
        self.ended = isinstance(message, End)

    def take(self) -> bytes:
        """What is to be sent next, as much as one piece may hold; empty if there is nothing."""
        taken: list[bytes] = []
        size = 0
        while self.pending:
            encoded = self._kept[self._sent]
            if taken and size + len(encoded) > MAX_DATA_BYTES:
                break
            taken.append(encoded)
            size += len(encoded)
            self._sent += 1
        self._sent_end += size
        return b"".join(taken)

    def told(self, progress: Progress) -> None:
        """The other side says how far it is.

        Raises:
            MalformedInputError: `relay.malformed` if that cannot be.
        """
        in_order = self._begin <= progress.received <= self._sent_end
        if not in_order or not self._consumed <= progress.consumed <= progress.received:
            raise malformed("it has received what was never sent, or less than before")
        while self._begin < progress.received:
            encoded = self._kept.popleft()
            self._sent -= 1
            self._begin += len(encoded)
        if self._begin != progress.received:
            raise malformed("it has received a part of a message")
        self._consumed = progress.consumed

    def resume(self, progress: Progress) -> None:
        """Go on over another connection, with what the other side has not received.

        Raises:
            MalformedInputError: as `told`.
        """
        self.told(progress)
        self._sent, self._sent_end = 0, self._begin


class Arriving:
    """What has come from the other side.

    Attributes:
        ended: Its `End`, once that has come; it comes last.
    """

    def __init__(self, window_bytes: int) -> None:
        self._limit: Final = window_bytes + RESERVE_BYTES
        self._window_bytes: Final = window_bytes
        self._waiting: deque[Data] = deque()
        self._received = 0
        self._consumed = 0
        self._told = 0
        self.ended: End | None = None

    @property
    def held_bytes(self) -> int:
        """How much waits for a reader."""
        return self._received - self._consumed

    @property
    def should_tell(self) -> bool:
        """Whether the other side may be waiting to hear that there is room."""
        return self._consumed - self._told >= self._window_bytes // 2

    @property
    def has_data(self) -> bool:
        """Whether something waits for a reader."""
        return bool(self._waiting)

    def progress(self) -> Progress:
        """What is to be told to the other side, in a message that is sent now."""
        self._told = self._consumed
        return Progress(self._received, self._consumed)

    def take(self, message: Data | Notice | End) -> None:
        """It came.

        Raises:
            MalformedInputError: `relay.malformed` if it was said after the end, or where there was no room.
        """
        if self.ended is not None:
            raise malformed("something after its end")
        size = size_of(message)
        self._received += size
        if isinstance(message, Data):
            self._waiting.append(message)
        else:
            self._consumed += size
        if isinstance(message, End):
            self.ended = message
        if self.held_bytes > self._limit:
            raise malformed("more than there is room for")

    def read(self) -> bytes:
        """The next piece for the reader; empty if there is none now."""
        if not self._waiting:
            return b""
        message = self._waiting.popleft()
        self._consumed += size_of(message)
        return message.data
