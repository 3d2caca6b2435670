# SPDX-License-Identifier: Apache-2.0
"""What agents answer, written down before anybody is told: RESULT or UNKNOWN, and where the job stands from then on."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import structlog

from privyseal.errors import ConflictError, PrivysealError, UnavailableError
from privyseal.hub.entries import key_sha256, leaf_spki, result_entry, unknown_entry
from privyseal.hub.jobs import Record, Settled, cancelled, lease_raised, settle
from privyseal.hub.services.observer import JobStep, Observer
from privyseal.hub.services.queue_board import QueueBoard
from privyseal.hub.services.witnesses import Witnesses
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.ports.queue import Job, JobState, QueuedRequest, Request
from privyseal.ports.store import ProfileRow, ReadTx, Store, Tx
from privyseal.tlog.entry import Intent, Result, Unknown, encode_entry, parse_entry
from privyseal.wire.certificate_changed import CERTIFICATE_CHANGED
from privyseal.wire.jobs import ItemDone, ItemRefused

__all__ = ["Answered", "OpenJob", "Settler", "raise_fence", "write_ended"]

_LOG: Final = structlog.get_logger("privyseal.hub.lane")
T = TypeVar("T")
_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What an agent said of one job, which it was asked for by this INTENT."""

    request: Request
    job: Job
    intent: Intent
    answer: ItemDone | ItemRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """A job whose INTENT stands in the log, and whose outcome does not."""

    profile: ProfileRow
    request: Request
    job: Job
    intent: Intent

    def answered(self, answer: ItemDone | ItemRefused) -> Answered:
        """With what the agent says of it."""
        return Answered(request=self.request, job=self.job, intent=self.intent, answer=answer)


class Settler:
    """Settles the jobs of all lanes."""

    def __init__(
        self,
        *,
        store: Store,
        board: QueueBoard,
        witnesses: Witnesses,
        observer: Observer,
        changed: Callable[[str], None],
    ) -> None:
        """`changed` is called with a request's id after each durable change."""
        self._store: Final = store
        self._board: Final = board
        self._witnesses: Final = witnesses
        self._observer: Final = observer
        self._changed: Final = changed

    async def write(self, operation: Callable[[Tx], Awaitable[T]]) -> T:
        """Write, and again while the database takes nothing (a full disk): what an agent answered must not be lost.

        Raises:
            LogIntegrityError: the log can no longer be written by this process.
        """
        return await self.insist(lambda: self._store.write(operation))

    async def read(self, operation: Callable[[ReadTx], Awaitable[T]]) -> T:
        """Read, and again while the database does not answer: a token's lane cannot go on without.

        Raises:
            LogIntegrityError: as `write`.
        """
        return await self.insist(lambda: self._store.read(operation))

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the database for something until it answers."""
        while True:
            try:
                return await ask()
            except UnavailableError as error:
                _LOG.error("the database does not answer yet", code=error.code, reason=error.message)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def open_jobs(self, place: str) -> list[OpenJob]:
        """The open jobs of a token, given as `AGENT/TOKEN`."""

        async def read(tx: ReadTx) -> list[OpenJob]:
            profiles = {(row.name, row.place): row for row in await tx.profiles()}
            found = []
            for job in await tx.open_jobs():
                profile, request = profiles.get((job.profile, place)), await tx.request(job.request_id)
                if job.token == place and profile is not None and request is not None:
                    intent = parse_entry((await tx.entries(job.intent_index or 0, 1))[0])
                    if isinstance(intent, Intent):
                        found.append(OpenJob(profile=profile, request=request, job=job, intent=intent))
            return found

        return await self.read(read)

    async def settle(self, profile: ProfileRow, answered: Sequence[Answered]) -> bool:
        """Write what became of jobs of one token, in one commit, then tell whoever waits.

        Returns:
            Whether something stands in the queue again.
        """
        checked = [replace(one, answer=_checked(profile, one)) for one in answered]

        async def write(tx: Tx) -> tuple[list[tuple[Request, int, JobStep]], dict[str, QueuedRequest | None]]:
            steps = [step for one in checked if (step := await write_ended(tx, one)) is not None]
            again = {request.id for request, _, step in steps if step.state == JobState.QUEUED.value}
            for request_id in {request.id for request, _, _ in steps}:
                await tx.tell(request_id)
            return steps, {request_id: await tx.queued_request(request_id) for request_id in again}

        steps, again = await self.write(write)
        if profile.witness != "off":
            self._witnesses.want(profile, self._store.head.size - 1)
        self._board.update(again)
        taken: dict[tuple[str, JobStep], list[int]] = defaultdict(list)
        requests = {one.request.id: one.request for one in checked}
        for request, item, step in steps:
            taken[request.id, step].append(item)
        for (request_id, step), items in taken.items():
            self._observer.jobs(requests[request_id], items, step)
        for request_id in requests:
            self._changed(request_id)
        return bool(again)


async def write_ended(tx: Tx, answered: Answered) -> tuple[Request, int, JobStep] | None:
    """The item and what became of it; None if the answer is for another operation than the open one."""
    current = await tx.job(answered.job.request_id, answered.job.item)
    settled = settle(current, asked=answered.job, answer=answered.answer)
    if current is None or settled is None:
        return None
    now_ms = await tx.now_ms()
    index = await tx.append(encode_entry(_entry(current, answered, settled, now_ms)))
    if settled.raises_fence:
        await raise_fence(tx, answered.job)
    step = _step(settled, answered.answer)
    job = settled.recorded(index)
    if job.state is JobState.QUEUED and await _is_cancelled(tx, job):
        job = replace(cancelled(job), result_index=index)
        step = replace(step, state=job.state.value, code=job.code)
    await tx.put_job(job)
    return answered.request, current.item, step


async def raise_fence(tx: Tx, job: Job) -> None:
    """Above that of the job's last operation; one that was raised for another item of its batch will do."""
    lease = await tx.lease(job.token)
    if lease is not None and lease.fence <= job.fence:
        await tx.put_lease(lease_raised(lease, highest=max(one.fence for one in await tx.leases())))


async def _is_cancelled(tx: Tx, job: Job) -> bool:
    """Asked of the database: it may have been cancelled while the token was at work."""
    request = await tx.request(job.request_id)
    return request is not None and request.cancelled_ms is not None


def _checked(profile: ProfileRow, answered: Answered) -> ItemDone | ItemRefused:
    """A signature counts only if the certificate of the profile's key verifies it."""
    answer = answered.answer
    if isinstance(answer, ItemRefused):
        return answer
    if profile.is_device:  # what its lease was used for, in the agent's words
        return answer
    if answered.intent.key != key_sha256(profile.chain):  # its certificate went before the token was asked
        return ItemRefused(
            request=answer.request,
            item=answer.item,
            fence=answer.fence,
            branch=ConflictError.branch,
            code=CERTIFICATE_CHANGED,
            message=f"token {profile.place} signed with a key that is not its key for {profile.name!r} any more",
        )
    try:
        mechanism = Mechanism(answered.intent.mechanism)
        digest = bytes.fromhex(answered.intent.digest)
        verify_digest(leaf_spki(profile.chain), mechanism, digest, answer.signature)
    except PrivysealError as error:
        return ItemRefused(
            request=answer.request,
            item=answer.item,
            fence=answer.fence,
            branch=error.branch,
            code=error.code,
            message=f"agent {profile.agent!r} answered with a signature that does not hold: {error.message}",
        )
    return answer


def _step(settled: Settled, answer: ItemDone | ItemRefused) -> JobStep:
    code = "" if isinstance(answer, ItemDone) else answer.code
    outcome = "signed" if settled.record is Record.OK else settled.record.value
    return JobStep(state=settled.job.state.value, outcome=outcome, code=code)


def _entry(job: Job, answered: Answered, settled: Settled, now_ms: int) -> Result | Unknown:
    if isinstance(answered.answer, ItemDone):
        return result_entry(job, answered.intent, now_ms, signature=answered.answer.signature)
    if settled.record is Record.UNKNOWN:
        return unknown_entry(job, now_ms, answered.answer.code)
    return result_entry(job, answered.intent, now_ms, outcome=settled.record.value, code=answered.answer.code)
