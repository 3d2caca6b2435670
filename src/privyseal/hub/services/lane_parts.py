# SPDX-License-Identifier: Apache-2.0
"""What a lane is given: the hub's services, what decides about its members, and those members."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privyseal.errors import PrivysealError
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.claiming import Batch
from privyseal.hub.services.observer import JobStep, Observer
from privyseal.hub.services.queue_board import Line, QueueBoard
from privyseal.hub.services.settling import Settler
from privyseal.hub.services.witnesses import Witnesses
from privyseal.ports.clock import Clock
from privyseal.ports.store import ProfileRow, Store

if TYPE_CHECKING:
    from privyseal.hub.services.lane import Lane

__all__ = ["LaneRules", "LaneServices", "Member"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneServices:
    """What every lane needs of the hub."""

    store: Store
    audit: Audit
    witnesses: Witnesses
    observer: Observer
    board: QueueBoard
    settler: Settler
    clock: Clock
    holder: str  #: names this process as the holder of leases
    lease_ms: int
    alone: bool  #: no other process uses the database
    changed: Callable[[str], None]  #: called with a request id after each durable change
    failed: Callable[[BaseException], None]  #: called when the log or database cannot be trusted any more

    def tell_claim(self, batch: Batch) -> None:
        """Say what was claimed, and wake those who wait for what was refused instead."""
        for part in batch.parts:
            if part.jobs:
                self.observer.jobs(part.request, (job.item for job in part.jobs), JobStep(state="intent"))
            elif part.refused:
                step = JobStep(state="failed", outcome="denied", code=part.refused[0].code)
                self.observer.jobs(part.request, (job.item for job in part.refused), step)
                self.changed(part.request.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A key profile as one token serves it.

    Attributes:
        problem: Why nothing can be signed for it now, as its agent says; or None.
    """

    profile: ProfileRow
    problem: PrivysealError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRules:
    """What decides about a lane's members beside their agent.

    Attributes:
        serves: Whether a member may take from a line of its key profile, now or later.
        unfit: Why a member takes nothing now, or None.
        leaves: Whether a lane that has work leaves a line to another one, which has none.
        busy: Called when a lane has got work, or can take none: what was left to it another one may take.
    """

    serves: Callable[[ProfileRow, Line], bool]
    unfit: Callable[[ProfileRow], PrivysealError | None]
    leaves: Callable[["Lane", Line], bool] = lambda _lane, _line: False
    busy: Callable[["Lane"], None] = lambda _lane: None
