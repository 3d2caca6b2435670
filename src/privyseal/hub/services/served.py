# SPDX-License-Identifier: Apache-2.0
"""A key profile as its clients see it: the tokens behind it, and which of them can sign now."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from privyseal.errors import PrivysealError, UnavailableError
from privyseal.hub.services.lane import Lane
from privyseal.hub.services.queue_board import Line
from privyseal.ports.store import ProfileRow

__all__ = ["ServedProfile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedProfile:
    """One key profile.

    Attributes:
        rows: How it was announced for each of its tokens, those for requests made now first.
        lanes: Those tokens' lanes, in the same order.
        line: Where a request stands that is asked about; one made now for which any key will do, if nothing is said.
    """

    name: str
    rows: tuple[ProfileRow, ...]
    lanes: tuple[Lane, ...]
    line: Line

    def for_line(self, line: Line) -> Self:
        """The same for a request that stands elsewhere."""
        return replace(self, line=line)

    @property
    def profile(self) -> ProfileRow:
        """The row of the token that a request would most likely use."""
        ranks = [
            (lane.takes(self.line), lane.serves(row, self.line), lane.problem(self.name) is None, bool(row.chain))
            for row, lane in self.members
        ]
        return self.rows[ranks.index(max(ranks))]

    @property
    def members(self) -> tuple[tuple[ProfileRow, Lane], ...]:
        """Its tokens."""
        return tuple(zip(self.rows, self.lanes, strict=True))

    @property
    def has_token(self) -> bool:
        """Whether a token may sign for the line at all, now or later."""
        return any(lane.serves(row, self.line) for row, lane in self.members)

    @property
    def online(self) -> bool:
        """Whether something can be signed now."""
        return any(lane.takes(self.line) for lane in self.lanes)

    @property
    def problem(self) -> PrivysealError | None:
        """Why nothing can be signed although an agent has a link, or None."""
        if self.online:
            return None
        may = [lane for row, lane in self.members if lane.serves(row, self.line)]
        found = (lane.problem(self.name) for lane in may if lane.linked)
        return next((problem for problem in found if problem is not None), None)

    @property
    def agent_name(self) -> str:
        """Name of the agent that serves it."""
        return self.profile.agent

    def offline(self) -> UnavailableError:
        """Why nothing can be sent while there is no link."""
        may = [row for row, lane in self.members if lane.serves(row, self.line)]
        agents = ", ".join(sorted({repr(row.agent) for row in may or self.rows}))
        return UnavailableError(
            "agent.offline",
            f"agent {agents}, which {_serves(self.profile)} {self.name!r}, has no link to the hub",
            hint="start it on the token's host (privyseal agent run), or try again in a moment",
        )

    @property
    def other_chains(self) -> tuple[tuple[bytes, ...], ...]:
        """Certificates of the keys in the other tokens that may sign what is asked for now."""
        own = self.profile.chain
        chains = (row.chain for row, lane in self.members if lane.serves(row, self.line))
        return tuple(dict.fromkeys(chain for chain in chains if chain and chain != own))

    def idle_lane(self, free: Callable[[Lane], bool]) -> Lane | None:
        """Of the lanes that can take from the line now and have room, the one that is busy for the shortest time.

        Of several that have nothing to do, the one that has rested longest; one of which no time is known comes last.
        """
        able = [lane for lane in self.lanes if lane.takes(self.line)]
        able = [lane for lane in able if not lane.ails] or able
        able.sort(key=lambda lane: (lane.seconds_left, lane.open_items, lane.used_s))
        return next((lane for lane in able if free(lane)), None)

    def items_before(self, request_id: str) -> int:
        """How many items are at the profile's tokens, or prepared, that are of other requests."""
        return sum(
            sum(len(part.jobs) for part in one.batch.parts if part.request.id != request_id)
            for lane in self.lanes
            for one in lane.under_way
        )

    @property
    def items_under_way(self) -> int:
        """How many items its tokens have still to answer for, of whatever key profile."""
        return sum(one.open_items for lane in self.lanes for one in lane.under_way)

    def seconds_if_known(self, items: int) -> float | None:
        """How long its tokens take for so many items, as was measured; None if nothing was."""
        able = (lane for lane in self.lanes if lane.takes(self.line) and not lane.is_lent)  # nobody knows how long
        rates = [1 / lane.pace.seconds_per_item for lane in able if lane.pace.seconds_per_item]
        return items / sum(rates) if rates else None

    def seconds_for(self, items: int) -> float:
        """The same, or a guess: at least a second."""
        return max(1.0, self.seconds_if_known(items) or 1.0)


def _serves(row: ProfileRow) -> str:
    return "lends device" if row.is_device else "serves key profile"
