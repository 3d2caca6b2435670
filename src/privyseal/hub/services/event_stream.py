# SPDX-License-Identifier: Apache-2.0
"""The newest events of a hub, and those who listen.

Nobody who listens can hold the hub up: events lie in bounded rings, each listener has only a place in them. Whoever
falls so far behind that events are gone is let go. Events of a client's own jobs lie in a ring of its own: many of them
push out neither tokens' events nor another client's.
"""

import asyncio
import heapq
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from privyseal.errors import UnavailableError
from privyseal.wire.events import HubEvent, encode_event, event_name

__all__ = ["EventStream", "Sent", "Subscription"]

_RING_EVENTS: Final = 1024
_CLIENT_RINGS: Final = 64
_CLIENT_RING_EVENTS: Final = 256
_MOST_OF_A_CLIENT: Final = 4
_MOST: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """An event with its place; `id` is its `Last-Event-ID`."""

    number: int
    id: str
    name: str
    data: bytes


@dataclass(slots=True, kw_only=True)
class _Ring:
    """The newest events; `gone` is the number of the last one that is not kept any more."""

    events: deque[Sent]
    gone: int = 0

    def add(self, sent: Sent) -> None:
        if len(self.events) == self.events.maxlen:
            self.gone = self.events[0].number
        self.events.append(sent)

    def after(self, number: int) -> list[Sent]:
        found: list[Sent] = []
        for sent in reversed(self.events):
            if sent.number <= number:
                break
            found.append(sent)
        return found[::-1]


@dataclass(eq=False, slots=True, kw_only=True)
class Subscription:
    """One listener.

    Attributes:
        number: Number of the last event that it has.
        missed: Whether events between its `Last-Event-ID` and its first one are gone.
        ended: Whether it hears nothing more: its client has no standing any more.
    """

    client: str
    number: int
    missed: bool
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)


class EventStream:
    """Events to whoever listens."""

    def __init__(self, *, ring_events: int = _RING_EVENTS, client_ring_events: int = _CLIENT_RING_EVENTS) -> None:
        #: Numbers of one process mean nothing to the next.
        self._process: Final = secrets.token_hex(4)
        self._client_ring_events: Final = client_ring_events
        self._number = 0
        self._shared = _Ring(events=deque(maxlen=ring_events))
        self._own: OrderedDict[str, _Ring] = OrderedDict()
        #: Number of the last event of a client's ring that is not kept any more as a whole.
        self._forgotten = 0
        self._subscriptions: set[Subscription] = set()
        #: Listeners that were let go because they fell behind.
        self.dropped = 0

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._subscriptions)

    def publish(self, event: HubEvent, client: str = "") -> None:
        """Tell an event to everybody, or to one client alone."""
        self._number += 1
        sent = Sent(
            number=self._number,
            id=f"{self._process}-{self._number}",
            name=event_name(event),
            data=encode_event(event),
        )
        (self._ring_of(client) if client else self._shared).add(sent)
        for subscription in self._subscriptions:
            if not client or subscription.client == client:
                subscription.news.set()

    def _ring_of(self, client: str) -> _Ring:
        if client not in self._own:
            self._own[client] = _Ring(events=deque(maxlen=self._client_ring_events), gone=self._forgotten)
        self._own.move_to_end(client)
        if len(self._own) > _CLIENT_RINGS:
            listening = {one.client for one in self._subscriptions} | {client}
            oldest = next((name for name in self._own if name not in listening), "")
            if oldest:
                events = self._own.pop(oldest).events
                self._forgotten = max(self._forgotten, events[-1].number if events else 0)
        return self._own[client]

    def subscribe(self, client: str, last_id: str = "") -> Subscription:
        """Listen, from the event after `last_id` on, or from now on.

        Raises:
            UnavailableError: `events.too_many`.
        """
        of_client = sum(one.client == client for one in self._subscriptions)
        if of_client >= _MOST_OF_A_CLIENT or len(self._subscriptions) >= _MOST:
            raise UnavailableError(
                "events.too_many",
                f"this client has {of_client} event streams open, all clients together {len(self._subscriptions)}",
                hint=f"end one; a client may have {_MOST_OF_A_CLIENT}, all together {_MOST}",
            )
        number = self._number_of(last_id)
        self._ring_of(client)  # kept as long as it listens
        missed = bool(last_id) and (number is None or number < self._gone(client))
        subscription = Subscription(client=client, number=self._number if number is None else number, missed=missed)
        subscription.news.set()
        self._subscriptions.add(subscription)
        return subscription

    def _number_of(self, last_id: str) -> int | None:
        process, _, digits = last_id.partition("-")
        if process != self._process or not digits.isdecimal() or len(digits) > 18:
            return None
        return min(int(digits), self._number)

    def _gone(self, client: str) -> int:
        return max(self._shared.gone, self._own[client].gone)

    async def next(self, subscription: Subscription) -> tuple[Sent, ...] | None:
        """The next events in their order, once there are any; None if it has ended, or if some are gone already."""
        await subscription.news.wait()
        subscription.news.clear()
        if subscription.ended:
            return None
        if subscription.missed:
            subscription.missed = False  # it is told so, and goes on with what there is
            subscription.number = max(subscription.number, self._gone(subscription.client))
        elif subscription.number < self._gone(subscription.client):
            return None
        mine = self._own[subscription.client].after(subscription.number)
        found = tuple(heapq.merge(self._shared.after(subscription.number), mine, key=lambda sent: sent.number))
        if found:
            subscription.number = found[-1].number
        return found

    def end(self, client: str) -> None:
        """A client has no standing any more: it hears nothing more."""
        for subscription in self._subscriptions:
            if subscription.client == client:
                subscription.ended = True
                subscription.news.set()

    def unsubscribe(self, subscription: Subscription, *, dropped: bool = False) -> None:
        """A listener is gone, or is let go."""
        self._subscriptions.discard(subscription)
        self.dropped += dropped
