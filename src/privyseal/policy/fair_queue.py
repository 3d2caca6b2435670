# SPDX-License-Identifier: Apache-2.0
"""Which waiting request is next: priority classes with aging, and in a class a weighted fair share. Pure.

A share is a client, or a team of clients. In the highest class that waits, the share that has had the least of the
token, by its weight, is next (start-time fair queueing); in a share the oldest request. A request that has waited long
enough counts for the class above, so that no class starves another for ever.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import islice
from typing import Final

from privyseal.errors import MalformedInputError

__all__ = ["FairQueue", "Pick", "Place", "Priority", "Shares", "Waiting", "priority_named"]


class Priority(IntEnum):
    """Classes of requests; the higher one goes first."""

    NIGHTLY = 0
    NORMAL = 1
    RELEASE = 2
    NEXT = 3  #: an operator has put it before all others


#: What no request ages beyond.
_AGED_MOST: Final = Priority.RELEASE


def priority_named(name: str) -> Priority:
    """The class of that name, such as `release`.

    Raises:
        MalformedInputError: `request.priority`.
    """
    try:
        return Priority[name.upper()]
    except KeyError:
        known = ", ".join(one.name.lower() for one in reversed(Priority))
        raise MalformedInputError(
            "request.priority", f"there is no priority {name!r}", hint=f"one of: {known}"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A request of which items are queued.

    Attributes:
        share: Whose fair share it counts for.
        seq: Place of its first queued item over all requests.
        queued_ms: Since when it waits.
        items: How many of its items are queued.
    """

    request_id: str
    share: str
    priority: Priority
    seq: int
    queued_ms: int
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """So many items of this request are next. It was in the class `priority`, aged or not."""

    waiting: Waiting
    priority: Priority
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a request stands: in the class `priority`, aged or not, behind `before` items."""

    waiting: Waiting
    priority: Priority
    before: int


class Shares:
    """What each share has had. Queues that compete for the same tokens have one in common."""

    def __init__(self, weights: dict[str, float]) -> None:
        """`weights` of the shares that do not have weight 1."""
        self._weights: Final = weights
        self._had: dict[str, float] = {}
        #: What the share that was served last had had: who comes now does not start before that.
        self._now = 0.0

    def weight(self, share: str) -> float:
        """Of two shares that both wait, one with twice the weight gets twice as much."""
        return self._weights.get(share, 1.0)

    def had(self, share: str) -> float:
        """Of a share that waits or waited."""
        return self._had[share]

    def serve(self, share: str, items: int) -> None:
        """A share that waits gets so many items."""
        had = self._had[share]
        self._now = max(self._now, had)
        self._had[share] = had + items / self.weight(share)

    def comes(self, share: str) -> None:
        """Something of a share waits of which nothing waited: it has saved nothing up meanwhile."""
        self._had[share] = max(self._had.get(share, 0.0), self._now)


class FairQueue:
    """Requests that wait for one of the same tokens."""

    def __init__(self, shares: Shares, *, aging_ms: int) -> None:
        """`aging_ms`: after so long in a class a request counts for the next higher one; 0 for never."""
        self._shares: Final = shares
        self._aging_ms: Final = aging_ms
        self._waiting: dict[str, Waiting] = {}
        self._class_of: dict[str, Priority] = {}
        self._order: dict[Priority, dict[str, list[tuple[int, str]]]] = {one: {} for one in Priority}
        #: Shares of a class by what they had had when they were put here. What is out of date is passed over.
        self._turns: dict[Priority, list[tuple[float, int, str]]] = {one: [] for one in Priority}
        self._ages: dict[Priority, list[tuple[int, str]]] = {one: [] for one in Priority}
        self._items: dict[tuple[Priority, str], int] = {}

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._waiting

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._waiting.values())

    @property
    def items(self) -> int:
        """How many items wait."""
        return sum(self._items.values())

    def items_of(self, share: str) -> int:
        """How many items of a share wait."""
        return sum(self._items.get((priority, share), 0) for priority in Priority)

    def items_in(self, priority: Priority) -> int:
        """How many items wait in a class, aged or not."""
        return sum(items for (one, _), items in self._items.items() if one is priority)

    def put(self, waiting: Waiting) -> None:
        """A request waits, or waits otherwise than it did; one without items does not wait any more."""
        comes = self.items_of(waiting.share) == 0
        self.remove(waiting.request_id)
        if waiting.items > 0:
            if comes:
                self._shares.comes(waiting.share)
            self._waiting[waiting.request_id] = waiting
            self._enter(waiting, waiting.priority)

    def remove(self, request_id: str) -> None:
        """A request does not wait any more."""
        waiting = self._waiting.pop(request_id, None)
        if waiting is not None:
            self._leave(waiting, self._class_of.pop(request_id))

    def best(self, now_ms: int) -> Priority | None:
        """The highest class in which a request waits."""
        self._age(now_ms)
        return next((one for one in reversed(Priority) if self._order[one]), None)

    def take(self, now_ms: int, room: int) -> tuple[Pick, ...]:
        """What is next, `room` items at most, all of one class; it does not wait any more.

        Of a request of which some items are left, the rest waits on; each request is named once.
        """
        picks: dict[str, Pick] = {}
        priority = self.best(now_ms)
        while priority is not None and room > 0 and (share := self._next_share(priority)) is not None:
            waiting = self._waiting[self._first(priority, share)]
            quantum = math.ceil(room / len(self._order[priority]))
            items = min(waiting.items, quantum)
            self._shares.serve(share, items)
            self.remove(waiting.request_id)
            if items < waiting.items:
                rest = replace(waiting, items=waiting.items - items)
                self._waiting[rest.request_id] = rest
                self._enter(rest, priority)
            elif share in self._order[priority]:
                self._turn(priority, share)
            before = picks.get(waiting.request_id, Pick(waiting=waiting, priority=priority, items=0))
            picks[waiting.request_id] = replace(before, items=before.items + items)
            room -= items
        return tuple(picks.values())

    def before(self, request_id: str) -> int:
        """How many waiting items will be served before the first of this request, if nothing else comes.

        What other shares get in the meantime is reckoned by their weights.
        """
        waiting, priority = self._waiting[request_id], self._class_of[request_id]
        order = self._current(priority, waiting.share)
        own = sum(self._waiting[other].items for seq, other in order if seq < waiting.seq)
        return self._before(waiting.share, priority, own)

    def place(self, request_id: str) -> Place:
        """The same, with the class that it counts for."""
        waiting, priority = self._waiting[request_id], self._class_of[request_id]
        return Place(waiting=waiting, priority=priority, before=self.before(request_id))

    def first(self, limit: int) -> tuple[Place, ...]:
        """The requests that will be served first, if nothing else comes, and what `before` says of each."""
        found: list[Place] = []
        for priority in reversed(Priority):
            shares = (self._places(priority, share, limit) for share in self._order[priority])
            in_order = heapq.merge(*shares, key=lambda place: (place.before, place.waiting.seq))
            found += islice(in_order, limit - len(found))
            if len(found) == limit:
                break
        return tuple(found)

    def _places(self, priority: Priority, share: str, limit: int) -> Iterator[Place]:
        """The first requests of a share in a class; reckoned as they are asked for."""
        own = 0
        for _, request_id in heapq.nsmallest(limit, self._current(priority, share)):
            waiting = self._waiting[request_id]
            yield Place(waiting=waiting, priority=priority, before=self._before(share, priority, own))
            own += waiting.items

    def _current(self, priority: Priority, share: str) -> set[tuple[int, str]]:
        """Place and id of the requests of a share in a class: what waits on may stand in the order twice."""
        order = self._order[priority].get(share, ())
        return {(seq, request_id) for seq, request_id in order if self._is_current(request_id, priority, seq)}

    def _before(self, share: str, priority: Priority, own: int) -> int:
        """What goes before an item that has `own` of its share and class before it."""
        higher = sum(items for (one, _), items in self._items.items() if one > priority)
        begins = self._will_have_had(share, priority) + own / self._shares.weight(share)
        others = 0.0
        for other in self._order[priority]:
            if other != share:
                ahead = (begins - self._will_have_had(other, priority)) * self._shares.weight(other)
                others += min(max(ahead, 0.0), self._items[priority, other])
        return higher + own + round(others)

    def _will_have_had(self, share: str, priority: Priority) -> float:
        """What a share will have had when it is the turn of a class."""
        higher = sum(self._items.get((one, share), 0) for one in Priority if one > priority)
        return self._shares.had(share) + higher / self._shares.weight(share)

    # -- one class ----------------------------------------------------------------------------------------------

    def _enter(self, waiting: Waiting, priority: Priority) -> None:
        share = waiting.share
        self._class_of[waiting.request_id] = priority
        heapq.heappush(self._order[priority].setdefault(share, []), (waiting.seq, waiting.request_id))
        self._items[priority, share] = self._items.get((priority, share), 0) + waiting.items
        if self._aging_ms and priority < _AGED_MOST:
            aged = int(priority) - int(waiting.priority) + 1
            heapq.heappush(self._ages[priority], (waiting.queued_ms + aged * self._aging_ms, waiting.request_id))
        self._turn(priority, share)

    def _leave(self, waiting: Waiting, priority: Priority) -> None:
        share = waiting.share
        left = self._items[priority, share] - waiting.items
        if left:
            self._items[priority, share] = left
        else:
            del self._items[priority, share], self._order[priority][share]

    def _turn(self, priority: Priority, share: str) -> None:
        heapq.heappush(self._turns[priority], (self._shares.had(share), self._order[priority][share][0][0], share))

    def _next_share(self, priority: Priority) -> str | None:
        """The share that has had the least."""
        turns = self._turns[priority]
        while turns:
            had, _, share = turns[0]
            if share in self._order[priority]:
                now = self._shares.had(share)
                if had == now:
                    return share
                if had < now:  # it was served meanwhile: its turn is a later one
                    heapq.heapreplace(turns, (now, self._order[priority][share][0][0], share))
                    continue
            heapq.heappop(turns)
        return None

    def _first(self, priority: Priority, share: str) -> str:
        """The oldest request of a share."""
        order = self._order[priority][share]
        while not self._is_current(order[0][1], priority, order[0][0]):
            heapq.heappop(order)
        return order[0][1]

    def _is_current(self, request_id: str, priority: Priority, seq: int) -> bool:
        waiting = self._waiting.get(request_id)
        return waiting is not None and waiting.seq == seq and self._class_of[request_id] is priority

    def _age(self, now_ms: int) -> None:
        """Let requests that have waited long enough count for the next higher class."""
        for priority in Priority:
            ages = self._ages[priority]
            while ages and ages[0][0] <= now_ms:
                _, request_id = heapq.heappop(ages)
                waiting = self._waiting.get(request_id)
                if waiting is not None and self._class_of[request_id] is priority:
                    self._leave(waiting, priority)
                    self._enter(waiting, Priority(priority + 1))
