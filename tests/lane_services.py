# SPDX-License-Identifier: Apache-2.0
"""What a lane needs of a hub, over a store that a test has: the hub's own parts, with nobody who listens."""

from no_witnesses import no_witnesses
from privyseal.hub.config import QueueTable
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.lane_parts import LaneServices
from privyseal.hub.services.observer import Observer
from privyseal.hub.services.queue_board import QueueBoard
from privyseal.hub.services.settling import Settler
from privyseal.ports.clock import Clock, system_clock
from privyseal.ports.store import Store

__all__ = ["lane_services"]


def lane_services(store: Store, *, clock: Clock = system_clock, holder: str = "this hub") -> LaneServices:
    """As `Hub` makes them."""
    audit = Audit(store)
    witnesses, observer = no_witnesses(store, audit), Observer(clock)
    board = QueueBoard(QueueTable(), (), {})
    return LaneServices(
        store=store,
        audit=audit,
        witnesses=witnesses,
        observer=observer,
        board=board,
        settler=Settler(store=store, board=board, witnesses=witnesses, observer=observer, changed=lambda _: None),
        clock=clock,
        holder=holder,
        lease_ms=10_000,
        alone=True,
        changed=lambda _: None,
        failed=lambda _: None,
    )
