# SPDX-License-Identifier: Apache-2.0
"""What became of a request: told to its own client, now or when there is something to tell."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from privyseal.hub.jobs import has_ended
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.queue_board import QueueBoard
from privyseal.hub.services.withdrawing import unknown_request
from privyseal.hub.services.witnesses import Witnesses
from privyseal.policy.fair_queue import Place
from privyseal.ports.queue import Job, JobState, Request
from privyseal.ports.store import Enrolment, ProfileRow, ReadTx, Store
from privyseal.wire.api import ItemView, RequestView
from privyseal.wire.statement import accepted_statement

__all__ = ["Outlook", "Question", "RequestViews"]

#: Most items of one answer.
_VIEW_ITEMS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about a request.

    Attributes:
        first: The first item that is of interest.
        enough: With so many items ended from there on, an answer is worth its way.
        seconds: How long to wait for that.
    """

    request_id: str
    first: int = 0
    enough: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A signature that is not released before witnesses have cosigned its RESULT, at this index."""

    profile: ProfileRow
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Where a request stands: items before it, and when its last one will be signed; None if nobody knows."""

    before: int = 0
    eta_seconds: float | None = None


class RequestViews:
    """Tells clients what became of their requests."""

    def __init__(
        self, *, store: Store, dispatch: Dispatch, board: QueueBoard, audit: Audit, witnesses: Witnesses
    ) -> None:
        self._store = store
        self._dispatch = dispatch
        self._board = board
        self._audit = audit
        self._witnesses = witnesses
        #: Woken in the order in which they came.
        self._waiting: dict[str, list[asyncio.Event]] = {}

    def changed(self, request_id: str) -> None:
        """Wake whoever waits for this request."""
        for event in self._waiting.get(request_id, ()):
            event.set()

    def changed_all(self) -> None:
        """Wake whoever waits for anything: what several requests waited for has come."""
        for request_id in tuple(self._waiting):
            self.changed(request_id)

    async def wait(self, caller: Enrolment, question: Question, *, fresh: bool = False) -> RequestView:
        """What became of a request: when it is done, enough of its items have ended, or the time has passed.

        Args:
            caller: Only its own requests are shown.
            question: What is asked.
            fresh: The request was accepted just now, with nothing awaited since: there is nothing to be seen yet.

        Raises:
            ConfigError: `request.unknown`.
        """
        with self.watch(question.request_id) as event:
            view = None if fresh else await self._view(caller, question, enough=question.enough)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(question.seconds):
                    while view is None:
                        await event.wait()
                        event.clear()
                        view = await self._view(caller, question, enough=question.enough)
            return view or await self.view(caller, question)

    @contextlib.contextmanager
    def watch(self, request_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something has become of a request."""
        event = asyncio.Event()
        self._waiting.setdefault(request_id, []).append(event)
        try:
            yield event
        finally:
            self._waiting[request_id].remove(event)
            if not self._waiting[request_id]:
                del self._waiting[request_id]

    async def view(self, caller: Enrolment, question: Question) -> RequestView:
        """What became of a request until now; only its own client may ask.

        Raises:
            ConfigError: `request.unknown`.
        """
        view = await self._view(caller, question, enough=0)
        if view is None:
            raise AssertionError  # nothing is always enough
        return view

    async def _view(self, caller: Enrolment, question: Question, *, enough: int) -> RequestView | None:
        """None if the request is not done, and fewer items than `enough` can be told."""
        held: list[_Held] = []

        async def read(tx: ReadTx) -> RequestView | None:
            request = await tx.request(question.request_id)
            if request is None or request.client != caller.name:
                raise unknown_request(question.request_id, caller.name)
            waiting = await tx.first_waiting(request.id)
            ended = tuple(takewhile(has_ended, await tx.jobs(request.id, question.first, _VIEW_ITEMS)))
            rows = {row.place: row for row in await tx.profiles() if row.name == request.profile}
            chains = tuple(dict.fromkeys(row.chain for row in rows.values()))
            items = await self._items(tx, rows, chains, ended)
            if len(items) < len(ended):
                next_one = ended[len(items)]
                held.append(_Held(profile=rows[next_one.token], index=next_one.result_index or 0))
            is_done = waiting is None and not held
            if not is_done and len(items) < enough:
                return None
            outlook = Outlook() if waiting is None else self.outlook(request, self._board.place(request.id))
            return RequestView(
                id=request.id,
                state="done" if is_done else "waiting",
                position=outlook.before,
                eta_seconds=outlook.eta_seconds,
                total=len(accepted_statement(request.envelope).items),
                first=question.first,
                chains=chains,
                items=items,
            )

        view = await self._store.read(read)
        for one in held:  # asked for again also after a restart, when nobody remembers that it was
            self._witnesses.want(one.profile, one.index)
        return view

    def outlook(self, request: Request, place: Place | None) -> Outlook:
        """What is before a request that has not ended, and stands at this place of its line; at none if all is sent."""
        served = self._dispatch.profile(request.profile)
        before = 0 if place is None else place.before
        if served is None:
            return Outlook(before=before)
        items = served.items_under_way + before + self._board.items_of(request.id)
        others = 0 if place is None else served.items_before(request.id)
        return Outlook(before=others + before, eta_seconds=served.seconds_if_known(items))

    async def _items(
        self, tx: ReadTx, rows: dict[str, ProfileRow], chains: tuple[tuple[bytes, ...], ...], jobs: tuple[Job, ...]
    ) -> tuple[ItemView, ...]:
        """What became of jobs that have ended, up to the first whose signature waits for witnesses."""
        views = []
        for job in jobs:
            receipt, row = "", rows.get(job.token)
            if job.state is JobState.SIGNED and job.result_index is not None:
                cosigned = await self._witnesses.released(tx, row, job.result_index)
                if cosigned is None:
                    break
                receipt = await self._audit.receipt(tx, job.result_index, cosigned)
            views.append(
                ItemView(
                    state=job.state.value,
                    signature=job.signature,
                    receipt=receipt,
                    chain=0 if row is None else chains.index(row.chain),
                    branch=job.branch,
                    code=job.code,
                    message=job.message,
                )
            )
        return tuple(views)
