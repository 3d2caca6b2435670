# SPDX-License-Identifier: Apache-2.0
"""What waits at this hub, in the order in which it will be served.

The database decides what is queued; this is a view of it that costs no query for each claim. Where several processes
use one database, a view may be behind: then a claim finds less than was picked.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from privyseal.errors import UnavailableError
from privyseal.hub.config import QueueTable, TeamTable
from privyseal.policy.fair_queue import FairQueue, Pick, Place, Priority, Shares, Waiting
from privyseal.ports.queue import QueuedRequest, Request

__all__ = ["Line", "QueueBoard"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Line:
    """Requests that the same tokens can serve.

    Attributes:
        successor: They are for the tokens that follow those of today (a planned rollover).
        key: SHA-256 of the only public key that will do, in hex; empty if any of the profile's will.
    """

    profile: str
    successor: bool = False
    key: str = ""


class QueueBoard:
    """The lines of one hub."""

    def __init__(self, queue: QueueTable, teams: Sequence[TeamTable], rollovers: dict[str, int]) -> None:
        """`rollovers`: from when on (milliseconds) requests of a key profile are for its next tokens."""
        self._table: Final = queue
        self._teams: Final = tuple(teams)
        self._rollovers: Final = rollovers
        self._weights: Final = {team.name: team.weight for team in teams}
        self._shares: dict[str, Shares] = {}
        self._lines: dict[Line, FairQueue] = {}
        self._line_of: dict[str, Line] = {}
        #: Requests of each line, with those that were taken and not put back yet.
        self._standing: Counter[Line] = Counter()
        self._requests: dict[str, QueuedRequest] = {}
        self._by_client: dict[str, int] = {}
        #: When something was last taken of a line.
        self._turns: dict[Line, int] = {}
        self._turn = 0
        #: How many requests were refused because the queue was full.
        self.refusals = 0

    def share(self, client: str) -> str:
        """Whose fair share a client's requests count for: its team's, or its own."""
        return next((team.name for team in self._teams if _is_member(team, client)), client)

    def highest(self, client: str) -> Priority:
        """The highest class that a client may ask for."""
        found = next((team.priority for team in self._teams if _is_member(team, client)), self._table.priority)
        return Priority[found.upper()]

    @property
    def longest_ms(self) -> int:
        """How long a request may wait."""
        return self._table.longest_seconds * 1000

    def oldest_ms(self, profile: str) -> dict[Priority, int]:
        """When the first one that waits was queued, by the class that was asked for."""
        found: dict[Priority, int] = {}
        for request in (one.request for one in self._requests.values() if one.request.profile == profile):
            priority = Priority(request.priority)
            found[priority] = min(request.queued_ms, found.get(priority, request.queued_ms))
        return found

    def line(self, request: Request) -> Line:
        """Where a request stands."""
        rollover_ms = self._rollovers.get(request.profile)
        successor = rollover_ms is not None and request.queued_ms >= rollover_ms
        return Line(profile=request.profile, successor=successor, key=request.key)

    def lines(self, profile: str) -> tuple[Line, ...]:
        """The lines of a key profile in which something waits."""
        return tuple(line for line, queue in self._lines.items() if line.profile == profile and len(queue))

    def keyed_lines(self) -> tuple[Line, ...]:
        """The lines of requests that only one key will do for."""
        return tuple(line for line in self._lines if line.key)

    # -- what waits ---------------------------------------------------------------------------------------------

    @property
    def items(self) -> int:
        """How many items wait in all."""
        return sum(self._by_client.values())

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._requests

    @property
    def requests(self) -> Iterable[QueuedRequest]:
        """All requests that wait."""
        return self._requests.values()

    def items_of(self, request_id: str) -> int:
        """How many items of a request wait."""
        queued = self._requests.get(request_id)
        return 0 if queued is None else queued.items

    def depth(self, profile: str) -> dict[Priority, int]:
        """How many items of a key profile wait, by the class that they count for now; the highest first."""
        queues = [self._lines[line] for line in self.lines(profile)]
        counted = {one: sum(queue.items_in(one) for queue in queues) for one in reversed(Priority)}
        return {priority: items for priority, items in counted.items() if items}

    def first(self, profile: str, limit: int) -> tuple[tuple[Place, QueuedRequest], ...]:
        """The requests of a key profile that will be served first, line by line."""
        found = [place for line in sorted(self.lines(profile)) for place in self._lines[line].first(limit)]
        return tuple((place, self._requests[place.waiting.request_id]) for place in found[:limit])

    def queued(self, request_id: str) -> QueuedRequest | None:
        """A request that waits."""
        return self._requests.get(request_id)

    def count(self, profile: str) -> int:
        """How many requests of a key profile wait."""
        return sum(len(self._lines[line]) for line in self.lines(profile))

    @property
    def profiles(self) -> tuple[str, ...]:
        """Key profiles of which something waits."""
        return tuple(sorted({line.profile for line, queue in self._lines.items() if len(queue)}))

    def first_pick(self, queued: QueuedRequest, room: int) -> Pick:
        """What is claimed of a request before which nothing waits."""
        waiting = self._waiting(queued)
        return Pick(waiting=waiting, priority=waiting.priority, items=min(room, queued.items))

    def ensure_room(self, client: str, items: int, again_seconds: float) -> None:
        """Refuse what would make the queue too long.

        Raises:
            UnavailableError: `queue.full`, for the client or for all.
        """
        own, most = self._by_client.get(client, 0), self._table.most_per_client
        if own + items > most:
            why = f"client {client!r} has {own} items in the queue, and may have {most}"
        elif self.items + items > self._table.most:
            why = f"{self.items} items are in the queue of at most {self._table.most}"
        else:
            return
        self.refusals += 1
        raise _full(why, again_seconds)

    def put(self, queued: QueuedRequest) -> None:
        """A request waits, or waits otherwise than it did."""
        request = queued.request
        self.remove(request.id)
        if queued.items <= 0:
            return
        line = self.line(request)
        if line not in self._lines:
            shares = self._shares.setdefault(line.profile, Shares(self._weights))
            self._lines[line] = FairQueue(shares, aging_ms=self._table.aging_minutes * 60_000)
        self._line_of[request.id] = line
        self._standing[line] += 1
        self._requests[request.id] = queued
        self._by_client[request.client] = self._by_client.get(request.client, 0) + queued.items
        self._lines[line].put(self._waiting(queued))

    def remove(self, request_id: str) -> None:
        """A request does not wait any more."""
        queued = self._requests.pop(request_id, None)
        if queued is None:
            return
        line = self._line_of.pop(request_id)
        self._lines[line].remove(request_id)
        client = queued.request.client
        self._by_client[client] -= queued.items
        if self._by_client[client] <= 0:
            del self._by_client[client]
        self._standing[line] -= 1
        if not self._standing[line] and line.key:  # there may be many of these
            del self._lines[line], self._standing[line]
            self._turns.pop(line, None)

    def load(self, found: Iterable[QueuedRequest]) -> None:
        """Take what the database holds in place of everything."""
        for request_id in tuple(self._requests):
            self.remove(request_id)
        for queued in found:
            self.put(queued)

    def update(self, states: dict[str, QueuedRequest | None]) -> None:
        """Take how some requests wait now; None for one that does not."""
        for request_id, queued in states.items():
            if queued is None:
                self.remove(request_id)
            else:
                self.put(queued)

    def _waiting(self, queued: QueuedRequest) -> Waiting:
        request = queued.request
        return Waiting(
            request_id=request.id,
            share=self.share(request.client),
            priority=Priority(request.priority),
            seq=queued.seq,
            queued_ms=request.queued_ms,
            items=queued.items,
        )

    # -- what is next -------------------------------------------------------------------------------------------

    def best(self, lines: Iterable[Line], now_ms: int) -> tuple[Priority, Line] | None:
        """The highest class that waits in one of these lines, and the line; of several the one that waits longest."""
        found: list[tuple[Priority, int, Line]] = []
        for line in lines:
            queue = self._lines.get(line)
            priority = None if queue is None else queue.best(now_ms)
            if priority is not None:
                found.append((priority, -self._turns.get(line, 0), line))
        if not found:
            return None
        priority, _, line = max(found)
        return priority, line

    def take(self, line: Line, now_ms: int, room: int) -> tuple[Pick, ...]:
        """What is next in a line; it is not handed out again until `update` or `put_back` says how it waits."""
        self._turn += 1
        self._turns[line] = self._turn
        return self._lines[line].take(now_ms, room)

    def put_back(self, picks: Iterable[Pick]) -> None:
        """What was taken was not claimed after all."""
        for request_id in {pick.waiting.request_id for pick in picks}:
            if (queued := self._requests.get(request_id)) is not None:
                self.put(queued)

    def place(self, request_id: str) -> Place | None:
        """Where a request stands in its line, and in which class; None if it does not stand here."""
        line = self._line_of.get(request_id)
        if line is None or request_id not in self._lines[line]:
            return None
        return self._lines[line].place(request_id)


def _is_member(team: TeamTable, client: str) -> bool:
    return any(fnmatchcase(client, pattern) for pattern in team.clients)


def _full(why: str, again_seconds: float) -> UnavailableError:
    return UnavailableError(
        "queue.full",
        why,
        hint=f"try again in {again_seconds:.0f} s; the client does so by itself",
        retry_after_seconds=again_seconds,
    )
