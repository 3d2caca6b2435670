# SPDX-License-Identifier: Apache-2.0
"""The queue as people look at it: what waits and is under way, and how far one request is."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from privyseal.errors import ConfigError, IdentityError, UnavailableError
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.queue_board import QueueBoard
from privyseal.hub.services.views import Outlook, RequestViews
from privyseal.hub.services.withdrawing import unknown_request
from privyseal.hub.services.witnesses import Witnesses
from privyseal.policy.fair_queue import Place, Priority
from privyseal.ports.queue import JobState, Request, RequestUse, Standing
from privyseal.ports.store import Enrolment, ProfileRow, ReadTx, Store
from privyseal.wire.job_names import item_ranges
from privyseal.wire.queue import (
    ItemsView,
    QueuedView,
    QueueView,
    RequestProgress,
    RequestRecord,
    is_request_prefix,
    not_an_id,
)
from privyseal.wire.statement import accepted_statement

__all__ = ["QueueViews", "is_news", "priority_name"]

#: A signature that is not told before witnesses have cosigned its RESULT, at this index.
_Held = tuple[ProfileRow | None, int]

#: Most requests of one answer.
_LISTED: Final = 256
_PAGE_ITEMS: Final = 256
_MOST_WATCHERS: Final = 256
_MOST_WATCHERS_OF_A_CLIENT: Final = 16
#: An estimate that is off by less tells nothing new.
_ETA_SECONDS: Final = 1.0
_ETA_PART: Final = 0.1


def priority_name(priority: int) -> str:
    """A class as it is called outside."""
    return Priority(priority).name.lower()


def is_news(before: RequestProgress | None, now: RequestProgress, elapsed_seconds: float) -> bool:
    """Whether this is worth telling to who was told `before` so long ago, and can count down by itself."""
    if before is None or before.eta_seconds is None or now.eta_seconds is None:
        return now != before
    expected = max(0.0, before.eta_seconds - elapsed_seconds)
    if abs(now.eta_seconds - expected) > max(_ETA_SECONDS, _ETA_PART * expected):
        return True
    return _without_eta(now) != _without_eta(before)


def _without_eta(progress: RequestProgress) -> tuple[object, ...]:
    return tuple(getattr(progress, name) for name in progress.__struct_fields__ if name != "eta_seconds")


class QueueViews:
    """Tells members what waits, and clients how far their own requests are."""

    def __init__(
        self, *, store: Store, dispatch: Dispatch, board: QueueBoard, witnesses: Witnesses, views: RequestViews
    ) -> None:
        self._store: Final = store
        self._dispatch: Final = dispatch
        self._board: Final = board
        self._witnesses: Final = witnesses
        self._views: Final = views
        self._watchers: Final[Counter[str]] = Counter()

    # -- all of it ----------------------------------------------------------------------------------------------

    async def listing(self, profile: str, prefix: str) -> QueueView:
        """What waits and is under way: of one key profile, or all if empty; of ids with this beginning, or all.

        Raises:
            MalformedInputError: `request.id`.
        """
        if prefix and not is_request_prefix(prefix):
            raise not_an_id(prefix)
        uses: dict[str, list[RequestUse]] = defaultdict(list)
        for use in await self._store.read(lambda tx: tx.requests_under_way()):
            if use.request.id.startswith(prefix) and profile in ("", use.request.profile):
                uses[use.request.id].append(use)
        # From here on nothing is awaited: the board is seen at one moment.
        sent = [(None, found[0].request) for request_id, found in uses.items() if request_id not in self._board]
        total, waiting = self._found(profile, prefix)
        rows = sorted((*sent, *waiting), key=lambda row: (row[1].profile, row[0] is not None))[:_LISTED]
        total += len(sent)
        return QueueView(
            requests=tuple(self._row(place, request, uses[request.id]) for place, request in rows),
            total=total,
            cut=total > len(rows),
        )

    def _found(self, profile: str, prefix: str) -> tuple[int, list[tuple[Place | None, Request]]]:
        """How many requests wait, and the first of them."""
        names = (profile,) if profile else self._board.profiles
        if prefix:
            found = [one.request for one in self._board.requests if one.request.id.startswith(prefix)]
            found = [request for request in found if request.profile in names]
            return len(found), [(self._board.place(request.id), request) for request in found[:_LISTED]]
        first = [(place, queued.request) for name in names for place, queued in self._board.first(name, _LISTED)]
        return sum(self._board.count(name) for name in names), [*first[:_LISTED]]

    def _row(self, place: Place | None, request: Request, uses: Iterable[RequestUse]) -> QueuedView:
        outlook = self._views.outlook(request, place)
        return QueuedView(
            id=request.id,
            client=request.client,
            profile=request.profile,
            state="under-way" if place is None else "waiting",
            priority=priority_name(request.priority),
            counts_as="" if place is None else priority_name(place.priority),
            waiting=self._board.items_of(request.id),
            under_way=sum(use.items for use in uses),
            tokens=tuple(use.token for use in uses),
            position=outlook.before,
            eta_seconds=outlook.eta_seconds,
            queued_ms=request.queued_ms,
            not_after_ms=request.not_after_ms,
        )

    # -- one request --------------------------------------------------------------------------------------------

    async def record(self, caller: Enrolment, prefix: str) -> RequestRecord:
        """All that is known of a caller's own request, by the beginning of its id.

        Raises:
            MalformedInputError: `request.id`. ConfigError: `request.unknown`, `request.ambiguous`.
        """
        if not is_request_prefix(prefix):
            raise not_an_id(prefix)
        found = await self._store.read(lambda tx: tx.request_ids(prefix, caller.name, 2))
        if not found:
            raise unknown_request(prefix, caller.name)
        if len(found) > 1:
            raise ConfigError(
                "request.ambiguous",
                f"client {caller.name!r} has several requests whose ids begin with {prefix!r}",
                hint=f"give more digits: {found[0][:24]}… or {found[1][:24]}…",
            )
        request, progress = await self._progress(caller, found[0])
        place = self._board.place(request.id)
        return RequestRecord(
            progress=progress,
            client=request.client,
            profile=request.profile,
            counts_as="" if place is None else priority_name(place.priority),
            format=accepted_statement(request.envelope).format,
            key=request.key,
            idempotency_key=request.idempotency_key,
            created_ms=request.created_ms,
            queued_ms=request.queued_ms,
            not_after_ms=request.not_after_ms,
            cancelled_ms=request.cancelled_ms,
            items=await self._items(request.id, progress.total),
        )

    async def _items(self, request_id: str, total: int) -> tuple[ItemsView, ...]:
        alike: dict[tuple[str, str, str, str], list[int]] = defaultdict(list)
        for start in range(0, total, _PAGE_ITEMS):
            # A page a read: the preimages that come along may be large.
            for job in await self._store.read(lambda tx, start=start: tx.jobs(request_id, start, _PAGE_ITEMS)):  # type: ignore[misc]
                alike[job.state.value, job.token, job.code, job.message].append(job.item)
        return tuple(
            ItemsView(items=item_ranges(items), state=state, token=token, code=code, message=message)
            for (state, token, code, message), items in sorted(alike.items(), key=lambda one: one[1])
        )

    async def progress(self, caller: Enrolment, request_id: str) -> RequestProgress:
        """How far a caller's own request is.

        Raises:
            ConfigError: `request.unknown`. IdentityError: `identity.revoked`.
        """
        _, progress = await self._progress(caller, request_id)
        return progress

    async def _progress(self, caller: Enrolment, request_id: str) -> tuple[Request, RequestProgress]:
        async def read(tx: ReadTx) -> tuple[Request, tuple[Standing, ...], list[_Held]]:
            request = await tx.request(request_id)
            if request is None or request.client != caller.name:
                raise unknown_request(request_id, caller.name)
            enrolment = await tx.enrolment(caller.role, caller.name)
            if enrolment is None or enrolment.certificate_sha256 != caller.certificate_sha256:
                raise IdentityError("identity.revoked", f"the standing of {caller.role} {caller.name!r} has ended")
            standings = await tx.standings(request_id)
            rows = {row.place: row for row in await tx.profiles() if row.name == request.profile}
            signed = [
                (rows.get(one.token), one.result_index)
                for one in standings
                if one.state is JobState.SIGNED and one.result_index is not None
            ]
            held = [(row, index) for row, index in signed if await self._witnesses.released(tx, row, index) is None]
            return request, standings, held

        request, standings, held = await self._store.read(read)
        for row, index in held:  # also after a restart, when nobody remembers that it was asked for
            if row is not None:
                self._witnesses.want(row, index)
        return request, self._told(request, standings, told=not held)

    def _told(self, request: Request, standings: tuple[Standing, ...], *, told: bool) -> RequestProgress:
        items: Counter[JobState] = Counter()
        for one in standings:
            items[one.state] += one.items
        open_items = items[JobState.QUEUED] + items[JobState.INTENT]
        outlook = self._views.outlook(request, self._board.place(request.id)) if open_items else Outlook()
        return RequestProgress(
            id=request.id,
            state="waiting" if open_items or not told else "done",
            priority=priority_name(request.priority),
            position=outlook.before,
            eta_seconds=outlook.eta_seconds,
            total=items.total(),
            waiting=items[JobState.QUEUED],
            under_way=items[JobState.INTENT],
            signed=items[JobState.SIGNED],
            failed=items[JobState.FAILED],
        )

    @property
    def watchers(self) -> int:
        """How many watch a request."""
        return self._watchers.total()

    @contextmanager
    def watching(self, caller: Enrolment, request_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something has become of a request.

        Raises:
            UnavailableError: `events.too_many`.
        """
        own = self._watchers[caller.name]
        if own >= _MOST_WATCHERS_OF_A_CLIENT or self.watchers >= _MOST_WATCHERS:
            raise UnavailableError(
                "events.too_many",
                f"this client watches {own} requests, all clients together {self.watchers}",
                hint=f"end one; a client may watch {_MOST_WATCHERS_OF_A_CLIENT}, all together {_MOST_WATCHERS}",
            )
        self._watchers[caller.name] += 1
        try:
            with self._views.watch(request_id) as event:
                yield event
        finally:
            self._watchers[caller.name] -= 1
            if not self._watchers[caller.name]:
                del self._watchers[caller.name]
