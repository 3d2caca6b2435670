# SPDX-License-Identifier: Apache-2.0
"""Requests that leave the queue unsigned, or move in it: cancelled, put elsewhere, too late, for a key that is gone."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from privyseal.errors import ConfigError
from privyseal.hub.jobs import cancelled
from privyseal.hub.services.claiming import Part, refuse_late
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.observer import JobStep, Observer
from privyseal.hub.services.queue_board import QueueBoard
from privyseal.policy.fair_queue import Priority
from privyseal.ports.clock import Clock
from privyseal.ports.queue import JobState, QueuedRequest, Request
from privyseal.ports.store import Enrolment, Store, Tx
from privyseal.wire.certificate_changed import certificate_changed

__all__ = ["Recorder", "Withdrawals", "unknown_request"]

#: Puts an order on record in the transaction that carries it out; False if it was carried out before.
Recorder = Callable[[Tx], Awaitable[bool]]


def unknown_request(request_id: str, client: str = "") -> ConfigError:
    """The refusal of a question about a request that is not there, or is another client's."""
    whose = f"client {client!r} has" if client else "there is"
    return ConfigError("request.unknown", f"{whose} no request {request_id!r}", hint="privyseal queue list")


def _ended(request_id: str) -> ConfigError:
    return ConfigError(
        "request.ended",
        f"every item of request {request_id!r} has ended",
        hint="privyseal log find shows what was signed",
    )


class Withdrawals:
    """Takes requests out of the queue, or moves them in it."""

    def __init__(
        self,
        *,
        store: Store,
        dispatch: Dispatch,
        board: QueueBoard,
        observer: Observer,
        clock: Clock,
        changed: Callable[[str], None],
    ) -> None:
        """`changed` is called with a request's id after each durable change."""
        self._store = store
        self._dispatch = dispatch
        self._board = board
        self._observer = observer
        self._clock = clock
        self._changed = changed

    async def cancel(self, caller: Enrolment, request_id: str) -> None:
        """Take back what the token has not begun of a caller's request; what it has signed stays signed.

        Raises:
            ConfigError: `request.unknown`.
        """
        request = await self._store.read(lambda tx: tx.request(request_id))
        if request is None or request.client != caller.name:
            raise unknown_request(request_id, caller.name)
        await self.end(request_id)

    async def end(self, request_id: str, record: Recorder | None = None, reason: str = "") -> None:
        """The same for whoever may, whose order `record` puts on record; `reason` is for who has a USB lease of it.

        Raises:
            ConfigError: `request.unknown`; `request.ended` if there is nothing left to put on record.
        """

        async def write(tx: Tx) -> tuple[Request, list[int]] | None:
            request = await tx.request(request_id)
            if request is None:
                raise unknown_request(request_id)
            if record is not None:
                if not await record(tx):
                    return None
                if await tx.first_waiting(request_id) is None:
                    raise _ended(request_id)
            waiting = [job for job in await tx.jobs(request_id) if job.state is JobState.QUEUED]
            for job in waiting:
                await tx.put_job(cancelled(job))
            await tx.put_request(replace(request, cancelled_ms=request.cancelled_ms or await tx.now_ms()))
            await tx.tell(request_id)
            return request, [job.item for job in waiting]

        written = await self._store.write(write)
        if written is None:
            return
        request, items = written
        self._board.remove(request_id)
        if items:
            self._observer.jobs(request, items, JobStep(state="failed", outcome="cancelled", code="request.cancelled"))
        await self.recall(request_id, reason)
        self._changed(request_id)

    async def recall(self, request_id: str, reason: str = "") -> None:
        """Ask the agents for what their tokens have not begun of a request, and why."""
        for lane in self._dispatch.lanes:
            await lane.recall(request_id, reason=reason)

    async def move(self, request_id: str, priority: Priority, record: Recorder) -> None:
        """Put a request into another class; `record` puts the order on record.

        Raises:
            ConfigError: `request.unknown`; `request.not_queued` if nothing of it waits.
        """

        async def write(tx: Tx) -> QueuedRequest | None:
            if await tx.request(request_id) is None:
                raise unknown_request(request_id)
            if not await record(tx):
                return None
            queued = await tx.queued_request(request_id)
            if queued is None:
                raise ConfigError(
                    "request.not_queued",
                    f"nothing of request {request_id!r} waits in the queue",
                    hint="what is at a token, or has ended, cannot be moved; privyseal queue list shows what waits",
                )
            moved = replace(queued.request, priority=priority)
            await tx.put_request(moved)
            await tx.tell(request_id)
            return replace(queued, request=moved)

        queued = await self._store.write(write)
        if queued is not None:
            self._board.put(queued)
            self._dispatch.wake(queued.request.profile)
            self._changed(request_id)

    async def refuse_late(self) -> None:
        """Let requests that have passed their own not_after leave the queue, on record."""
        now_ms = self._clock()
        for queued in [one for one in self._board.requests if one.request.not_after_ms < now_ms]:
            await self._refuse_late(queued.request.id)

    async def _refuse_late(self, request_id: str) -> None:
        async def write(tx: Tx) -> Part | None:
            return await refuse_late(tx, request_id)

        while (part := await self._store.write(write)) is not None:
            step = JobStep(state="failed", outcome="denied", code=part.refused[0].code)
            self._observer.jobs(part.request, (job.item for job in part.refused), step)
            self._changed(request_id)
        self._board.update({request_id: await self._store.read(lambda tx: tx.queued_request(request_id))})

    async def refuse_orphans(self) -> None:
        """Let requests leave the queue that name a key with which no token signs for their profile any more."""
        for line in self._board.keyed_lines():
            if await self._dispatch.may_serve(line):
                continue
            for request in [one.request for one in self._board.requests if self._board.line(one.request) == line]:
                await self._orphan(request)

    async def _orphan(self, request: Request) -> None:
        error = certificate_changed(request.profile)

        async def write(tx: Tx) -> list[int]:
            waiting = [job for job in await tx.jobs(request.id) if job.state is JobState.QUEUED]
            for job in waiting:
                failed = replace(job, state=JobState.FAILED, branch=error.branch, code=error.code)
                await tx.put_job(replace(failed, message=error.message))
            await tx.tell(request.id)
            return [job.item for job in waiting]

        items = await self._store.write(write)
        self._board.remove(request.id)
        if items:
            self._observer.jobs(request, items, JobStep(state="failed", outcome="failed", code=error.code))
        self._changed(request.id)
