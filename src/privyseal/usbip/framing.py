# SPDX-License-Identifier: Apache-2.0
"""Cuts a stream of bytes into messages, in memory that the largest part of a message bounds."""

from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from privyseal.errors import PrivysealError

__all__ = ["Frames", "Parts"]

M = TypeVar("M")

#: Reads one message: yields how many bytes its next part has, is sent that part, returns the message.
Parts = Generator[int, bytes, M]


class Frames(Generic[M]):
    """Messages out of a stream.

    Feed it what arrives, take messages until there is none, feed it more. What it holds is at most one part and what
    was fed last. After an error it has lost its place in the stream, and raises that error for good.

    Args:
        read: Begins to read one message. It decides upon limits before it asks for a part.
    """

    def __init__(self, read: Callable[[], Parts[M]]) -> None:
        self._read = read
        self._buffer = bytearray()
        self._parts: Parts[M] | None = None
        self._needed_bytes = 0
        self._error: PrivysealError | None = None

    @property
    def is_between(self) -> bool:
        """Whether no message has begun: an end of the stream here cuts none off."""
        return not self._buffer and self._parts is None

    @property
    def held_bytes(self) -> int:
        """How much is held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add what arrived."""
        self._buffer += data

    def take(self) -> M | None:
        """The next message that is complete.

        Raises:
            MalformedInputError, UnsupportedInputError: What the reader of messages refuses, now and ever after.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._next()
        except PrivysealError as error:
            self._error = error
            self._buffer.clear()
            raise

    def rest(self) -> bytes:
        """What was fed and belongs to no message yet: the next protocol's. To be asked between messages only."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _next(self) -> M | None:
        if self._parts is None:
            if not self._buffer:
                return None
            self._parts = self._read()
            self._needed_bytes = next(self._parts)
        while len(self._buffer) >= self._needed_bytes:
            part = bytes(self._buffer[: self._needed_bytes])
            del self._buffer[: self._needed_bytes]
            try:
                self._needed_bytes = self._parts.send(part)
            except StopIteration as done:
                self._parts = None
                message: M = done.value
                return message
        return None
