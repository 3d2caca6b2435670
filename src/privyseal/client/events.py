# SPDX-License-Identifier: Apache-2.0
"""A hub's events as they come: GET /v1/events, read again after each loss from where it stopped."""

import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final

from privyseal.client.cell import Cell
from privyseal.client.time_limit import pause_seconds
from privyseal.errors import MalformedInputError, PrivysealError, UnavailableError
from privyseal.wire.events import HubEvent, decode_event

__all__ = ["follow_events", "read_events"]

_PATH: Final = "/v1/events"
#: The hub says something at least every ten seconds.
_SILENCE_SECONDS: Final = 40.0
#: A stream ends mostly because its hub is started anew, which takes a moment.
_FIRST_PAUSE: Final = 2
_MAX_EVENT_BYTES: Final = 256 * 1024
#: An id goes back to the hub in a header.
_MAX_ID_CHARACTERS: Final = 64


@dataclass(slots=True, kw_only=True)
class _Read:
    """What stands in one event of the stream, so far."""

    id: str = ""
    data: bytes = b""

    def take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"id":
            text = value.decode("ascii", "replace")
            self.id = text if text.isprintable() and text.isascii() and len(text) <= _MAX_ID_CHARACTERS else ""
        elif name == b"data":
            self.data += value

    def event(self) -> HubEvent | None:
        """None for one that this release does not know."""
        try:
            return decode_event(self.data) if self.data else None
        except MalformedInputError:
            return None


def read_events(pieces: Iterable[bytes]) -> Iterator[tuple[str, HubEvent]]:
    """Events of a stream with their ids, as far as this release knows them.

    Raises:
        UnavailableError: `hub.answer` for what no hub sends.
    """
    rest, read = b"", _Read()
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line:
                read.take(line)
                continue
            event = read.event()
            if event is not None:
                yield read.id, event
            read = _Read()
        if len(rest) + len(read.data) > _MAX_EVENT_BYTES:
            raise UnavailableError("hub.answer", f"the hub sends an event of more than {_MAX_EVENT_BYTES} bytes")


def follow_events(
    cell: Cell, *, wait: Callable[[float], object], trouble: Callable[[PrivysealError], None]
) -> Iterator[HubEvent]:
    """Events from now on, without end.

    Args:
        cell: Whom to ask.
        wait: Lets so many seconds pass.
        trouble: Called when the stream is lost; it is asked for again.

    Raises:
        PrivysealError: what another try would not change, and what the first one meets.
    """
    last_id, heard, losses = "", False, 0
    while True:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
        try:
            pieces = cell.stream(_PATH, headers, silence_seconds=_SILENCE_SECONDS)
            first = next(pieces, b"")  # the hub says something at once
            heard, losses = True, 0
            for event_id, event in read_events(chain((first,), pieces)):
                last_id = event_id or last_id
                yield event
            failure = UnavailableError("hub.unreachable", "the hub has ended the stream of events")
        except UnavailableError as error:
            if not heard:
                raise
            failure = error
        trouble(failure)
        wait(pause_seconds(_FIRST_PAUSE + losses, secrets.SystemRandom().random()))
        losses += 1
