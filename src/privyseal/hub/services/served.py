# SPDX-License-Identifier: Apache-2.0
"""A key profile as its clients see it: the tokens behind it, and which of them can sign now."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from privyseal.errors import ConfigError, PrivysealError, UnavailableError
from privyseal.hub.config import PoolTable
from privyseal.hub.entries import leaf_spki
from privyseal.hub.services.lane import Lane
from privyseal.hub.services.queue_board import Line
from privyseal.ports.store import ProfileRow

__all__ = ["Pools", "ServedProfile", "key_name"]


def key_name(profile: ProfileRow) -> str:
    """SHA-256 of the profile's public key in hex; empty if nothing is known of it."""
    return hashlib.sha256(leaf_spki(profile.chain)).hexdigest() if profile.chain else ""


class Pools:
    """Which tokens may serve which key profiles."""

    def __init__(self, tables: Sequence[PoolTable]) -> None:
        self._tables: Final = {table.profile: table for table in tables}

    @property
    def rollovers(self) -> dict[str, int]:
        """From when on (milliseconds) requests are for the successors, by key profile."""
        return {name: since for name, table in self._tables.items() if (since := table.since_ms) is not None}

    def has(self, profile: str) -> bool:
        """Whether a key profile may have several tokens."""
        return profile in self._tables

    def names(self, profile: str, place: str) -> bool:
        """Whether a pool names the token at that place."""
        table = self._tables[profile]
        return place in (*table.tokens, *table.successors)

    def serves(self, profile: ProfileRow, line: Line) -> bool:
        """Whether the token of this row may take from a line."""
        table = self._tables.get(line.profile)
        if table is not None and profile.place not in (table.successors if line.successor else table.tokens):
            return False
        return not line.key or line.key == key_name(profile)

    def difference(self, profile: ProfileRow, others: Sequence[ProfileRow]) -> ConfigError | None:
        """Clients of a pool do not choose the token, so all of them must be alike in what is promised of them."""
        for other in others:
            if _promises(other) != _promises(profile):
                return ConfigError(
                    "profile.differs",
                    f"token {profile.place} serves key profile {profile.name!r} with another level, witness, opaque or"
                    f" test than token {other.place}",
                    hint="make the [[key]] tables of all agents in the pool alike",
                )
        return None


def _promises(profile: ProfileRow) -> tuple[object, ...]:
    return profile.level, profile.witness, sorted(profile.opaque), profile.test


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedProfile:
    """One key profile.

    Attributes:
        rows: How it was announced for each of its tokens, the preferred one first.
        lanes: Those tokens' lanes, in the same order.
        line: Where a request made now would stand, if any key will do.
    """

    name: str
    rows: tuple[ProfileRow, ...]
    lanes: tuple[Lane, ...]
    line: Line

    @property
    def profile(self) -> ProfileRow:
        """The row of the token that a request made now would most likely use."""
        return self.rows[self._preferred]

    @property
    def _preferred(self) -> int:
        ranks = [
            (lane.takes(self.line), lane.linked and self.name in lane.members, bool(row.chain))
            for lane, row in zip(self.lanes, self.rows, strict=True)
        ]
        return ranks.index(max(ranks))

    @property
    def online(self) -> bool:
        """Whether something can be signed now."""
        return any(lane.takes(self.line) for lane in self.lanes)

    @property
    def problem(self) -> PrivysealError | None:
        """Why nothing can be signed although an agent has a link, or None."""
        if self.online:
            return None
        found = (lane.members[self.name].problem for lane in self.lanes if lane.linked and self.name in lane.members)
        return next((problem for problem in found if problem is not None), None)

    @property
    def agent_name(self) -> str:
        """Name of the agent that serves it."""
        return self.profile.agent

    def offline(self) -> UnavailableError:
        """Why nothing can be sent while there is no link."""
        agents = ", ".join(sorted({repr(row.agent) for row in self.rows}))
        return UnavailableError(
            "agent.offline",
            f"agent {agents}, which serves key profile {self.name!r}, has no link to the hub",
            hint="start it on the token's host (privyseal agent run), or try again in a moment",
        )

    @property
    def other_chains(self) -> tuple[tuple[bytes, ...], ...]:
        """Certificates of the keys in the other tokens that may sign what is asked for now."""
        own = self.profile.chain
        chains = (row.chain for row, lane in zip(self.rows, self.lanes, strict=True) if lane.serves(row, self.line))
        return tuple(dict.fromkeys(chain for chain in chains if chain and chain != own))

    @property
    def key_names(self) -> tuple[str, ...]:
        """Names of the keys of all tokens."""
        return tuple(key_name(row) for row in self.rows)

    def idle_lane(self, line: Line, free: Callable[[Lane], bool]) -> Lane | None:
        """Of the lanes that can take from a line now and have room, the one that is busy for the shortest time."""
        able = sorted((lane for lane in self.lanes if lane.takes(line)), key=lambda lane: lane.seconds_left)
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
        rates = [1 / lane.pace.seconds_per_item for lane in self.lanes if lane.linked and lane.pace.seconds_per_item]
        return items / sum(rates) if rates else None

    def seconds_for(self, items: int) -> float:
        """The same, or a guess: at least a second."""
        return max(1.0, self.seconds_if_known(items) or 1.0)
