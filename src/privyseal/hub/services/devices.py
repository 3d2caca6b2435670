# SPDX-License-Identifier: Apache-2.0
"""The USB devices that agents lend, as members see them: which there are, who has one, and who waits for it."""

from dataclasses import dataclass
from typing import Final

from privyseal.formats.model import Preimage
from privyseal.formats.usb import LeaseOrder, read_lease
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.queue_board import QueueBoard
from privyseal.hub.services.queue_views import priority_name
from privyseal.hub.services.recent import Recent
from privyseal.hub.services.served import ServedProfile
from privyseal.ports.queue import JobState, Request
from privyseal.ports.store import ReadTx, Store
from privyseal.wire.devices import DeviceView, LeaseView

__all__ = ["Devices"]

#: Most that are shown of those who wait for one device.
_SHOWN: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A request for a device, that runs or waits."""

    request: Request
    order: LeaseOrder
    is_lent: bool


class Devices:
    """Tells members of the devices."""

    def __init__(self, *, store: Store, dispatch: Dispatch, board: QueueBoard, recent: Recent) -> None:
        """`recent` remembers when what is under way began."""
        self._store: Final = store
        self._dispatch: Final = dispatch
        self._board: Final = board
        self._recent: Final = recent

    async def listing(self) -> tuple[DeviceView, ...]:
        """All devices, by name."""
        devices = tuple(one for one in self._dispatch.profiles if one.profile.is_device)
        waiting = {one.name: self._board.first(one.name, _SHOWN) for one in devices}

        async def read(tx: ReadTx) -> dict[str, list[_Asked]]:
            found: dict[str, list[_Asked]] = {one.name: [] for one in devices}
            lent = [use.request for use in await tx.requests_under_way() if use.request.profile in found]
            queued = [one.request for rows in waiting.values() for _, one in rows]
            for request, is_lent in [*((one, True) for one in lent), *((one, False) for one in queued)]:
                order = await _order(tx, request)
                if order is not None:
                    found[request.profile].append(_Asked(request=request, order=order, is_lent=is_lent))
            return found

        asked = await self._store.read(read) if devices else {}
        return tuple(self._view(one, asked[one.name]) for one in devices)

    def _view(self, served: ServedProfile, asked: list[_Asked]) -> DeviceView:
        row = served.profile
        problem = served.problem or (None if served.online else served.offline())
        under_way = [batch.batch.profile.name for lane in served.lanes for batch in lane.under_way]
        return DeviceView(
            name=row.name,
            agent=row.agent,
            place=row.place,
            label=row.token_label,
            serial=row.token_serial,
            level=row.level,
            online=problem is None,
            code="" if problem is None else problem.code,
            problem="" if problem is None else problem.message,
            hint="" if problem is None else problem.hint,
            leases=tuple(self._lease(one) for one in asked),
            waiting=self._board.count(row.name),
            signing=any(name != row.name for name in under_way),
        )

    def _lease(self, asked: _Asked) -> LeaseView:
        request, order = asked.request, asked.order
        since_ms = self._recent.since_ms(request.id) if asked.is_lent else None
        return LeaseView(
            request=request.id,
            client=request.client,
            state="lent" if asked.is_lent else "waiting",
            priority=priority_name(request.priority),
            reason=order.reason,
            seconds=order.seconds,
            queued_ms=request.queued_ms,
            since_ms=since_ms,
            until_ms=None if since_ms is None else since_ms + order.seconds * 1000,
        )


async def _order(tx: ReadTx, request: Request) -> LeaseOrder | None:
    """What was asked for; None if that has ended since."""
    jobs = await tx.jobs(request.id, 0, 1)
    if not jobs or jobs[0].state not in (JobState.QUEUED, JobState.INTENT):
        return None
    return read_lease(Preimage(signed=jobs[0].signed))
