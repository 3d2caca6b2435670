# SPDX-License-Identifier: Apache-2.0
"""One key profile's lane: from the queue to the token and back.

A lane holds the profile's lease and its fence. It claims the oldest queued items of one request, writes their INTENT
entries in the claiming transaction, sends them with their proofs, and writes a RESULT (or UNKNOWN) for each answer
before anybody is told. At most `WINDOW` batches are under way: one at the token, one prepared.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import structlog

from privyseal.errors import PrivysealError, UnavailableError
from privyseal.hub.entries import leaf_spki, result_entry, unknown_entry
from privyseal.hub.jobs import Record, Settled, answer_told, lease_raised, lease_taken, never_sent, settle
from privyseal.hub.links import AgentLink
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.claiming import Batch, claim_batch
from privyseal.hub.services.lane_rest import Rest
from privyseal.hub.services.observer import JobStep, Observer
from privyseal.hub.services.witnesses import Witnesses
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.ports.store import Job, ProfileRow, ReadTx, Request, Store, Tx
from privyseal.tlog.checkpoint import parse_checkpoint
from privyseal.tlog.entry import Intent, Result, Unknown, encode_entry, parse_entry
from privyseal.tlog.note import parse_note
from privyseal.wire.jobs import ItemDone, ItemRefused, JobItem, Membership
from privyseal.wire.jobs import Job as JobMessage

__all__ = ["WINDOW", "Lane", "LaneServices"]

#: Batches under way for one token: one being signed, one prepared.
WINDOW: Final = 2
_LOG: Final = structlog.get_logger("privyseal.hub.lane")
T = TypeVar("T")
_WRITE_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneServices:
    """What every lane needs of the hub."""

    store: Store
    audit: Audit
    witnesses: Witnesses
    observer: Observer
    holder: str
    changed: Callable[[str], None]  #: called with a request id after each durable change
    failed: Callable[[BaseException], None]  #: called when the log or database cannot be trusted any more


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    job: Job
    intent: Intent
    answer: ItemDone | ItemRefused


class Lane:
    """Dispatch for one key profile."""

    def __init__(self, profile: ProfileRow, services: LaneServices) -> None:
        self.profile = profile
        self.problem: PrivysealError | None = None
        self._services = services
        self._link: AgentLink | None = None
        self._free = WINDOW
        self._resolving = False
        self._left_over = False
        self._rest = Rest(self.wake)
        self._wake = asyncio.Event()
        self._may_be_queued = True
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def online(self) -> bool:
        """Whether jobs can be sent now."""
        return self._link is not None and self.problem is None

    @property
    def agent_name(self) -> str:
        """Name of the agent that serves the profile."""
        return self.profile.agent

    def offline(self) -> UnavailableError:
        """Why nothing can be sent while there is no link."""
        return UnavailableError(
            "agent.offline",
            f"agent {self.agent_name!r}, which serves key profile {self.profile.name!r}, has no link to the hub",
            hint="start it on the token's host (privyseal agent run), or try again in a moment",
        )

    # -- link ---------------------------------------------------------------------------------------------------

    async def attach(self, link: AgentLink, profile: ProfileRow, problem: PrivysealError | None) -> None:
        """A link to the profile's agent is live: take the lease, settle what was left open, go on."""
        self.profile = profile
        self.problem = problem
        if self._link is link:
            self.wake()
            return
        self._resolving = True  # before the link counts: nothing is claimed under a fence that is not held yet
        self._link = link
        await self._services.store.write(self._take_lease)
        self._spawn(self._resolve_open(link))

    def detach(self, link: AgentLink) -> None:
        """The link is gone; what was under way is settled when the agent is back."""
        if self._link is link:
            self._link = None

    async def _take_lease(self, tx: Tx) -> None:
        known = await tx.lease(self.profile.name)
        lease = lease_taken(known, profile=self.profile.name, holder=self._services.holder)
        if lease != known:
            await tx.put_lease(lease)

    # -- claiming -----------------------------------------------------------------------------------------------

    def reserve(self) -> bool:
        """Take a place in the window; whoever gets one must `start` a batch or `release` it."""
        if not self.online or self._resolving or self._free == 0 or self._rest.active:
            return False
        self._free -= 1
        return True

    def release(self) -> None:
        """Give a place back; whatever waits for it is looked at again."""
        self._free += 1
        if self._may_be_queued:
            self._wake.set()

    def wake(self) -> None:
        """There may be something in the queue."""
        self._may_be_queued = True
        self._wake.set()

    async def claim(self, tx: Tx) -> Batch | None:
        """Claim the oldest items of one request, in the caller's transaction.

        The fence is read in it, too: one that was raised in a transaction that failed was not raised.
        """
        lease = await tx.lease(self.profile.name)
        if lease is None or lease.holder != self._services.holder:
            return None
        return await claim_batch(tx, self.profile, lease.fence)

    async def run(self) -> None:
        """Serve the queue until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self.reserve():
                    self._may_be_queued = False
                    batch = await self._write(self.claim)
                    if batch is None:
                        self._free += 1
                        break
                    self._may_be_queued = True
                    self.start(batch)
        except PrivysealError as error:
            self._services.failed(error)
        finally:
            for task in tuple(self._tasks):
                task.cancel()

    def start(self, batch: Batch) -> None:
        """Send a claimed batch; its place in the window is given back when every item is settled."""
        self._observe_claim(batch)
        if not batch.jobs:
            self._services.changed(batch.request.id)
            self.release()
        elif self._link is None or self._resolving:
            # Claimed while the link changed: its intents are open, and are settled as those of the lost link are.
            self._left_over = True
            self.release()
        else:
            self._spawn(self._serve(batch, self._link))

    def _observe_claim(self, batch: Batch) -> None:
        observer = self._services.observer
        if batch.jobs:
            observer.jobs(batch.request, (job.item for job in batch.jobs), JobStep(state="intent"))
        elif batch.refused:
            step = JobStep(state="failed", outcome="denied", code=batch.refused[0].code)
            observer.jobs(batch.request, (job.item for job in batch.refused), step)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.failed(error)

    async def _write(self, operation: Callable[[Tx], Awaitable[T]]) -> T:
        """Write, and again while the database takes nothing (a full disk): what an agent answered must not be lost.

        Raises:
            LogIntegrityError: the log can no longer be written by this process.
        """
        while True:
            try:
                return await self._services.store.write(operation)
            except UnavailableError as error:
                _LOG.error("not written yet", profile=self.profile.name, code=error.code, reason=error.message)
                await asyncio.sleep(_WRITE_AGAIN_SECONDS)

    # -- one batch ----------------------------------------------------------------------------------------------

    async def _serve(self, batch: Batch, link: AgentLink) -> None:
        try:
            cosigned = await self._cosigned(batch)
            if cosigned is None:
                return
            answers = [link.expect((job.request_id, job.item, job.fence)) for job in batch.jobs]
            await self._send(link, batch, cosigned)
            waiting = deque(zip(batch.jobs, batch.intents, answers, strict=True))
            while waiting:
                await waiting[0][2]
                ended = []
                while waiting and waiting[0][2].done():
                    job, intent, answer = waiting.popleft()
                    ended.append(_Ended(job=job, intent=intent, answer=answer.result()))
                await self._settle(batch.request, tuple(ended))
        except UnavailableError as error:
            if error.code != "agent.link_lost":
                raise
        finally:
            self.release()

    async def _cosigned(self, batch: Batch) -> str | None:
        """The checkpoint that witnesses have cosigned over the intents of a batch, empty where none is wanted.

        None if there is none: then the token was not used, and the items have ended.
        """
        if self.profile.witness != "before-use":
            return ""
        last = max(job.intent_index or 0 for job in batch.jobs)
        try:
            return await self._services.witnesses.cosigned(self.profile, last)
        except UnavailableError as error:
            ended = tuple(
                _Ended(job=job, intent=intent, answer=never_sent(job, error))
                for job, intent in zip(batch.jobs, batch.intents, strict=True)
            )
            await self._settle(batch.request, ended)
            return None

    async def _send(self, link: AgentLink, batch: Batch, cosigned: str) -> None:
        cosigned_size = parse_checkpoint(parse_note(cosigned).text).size if cosigned else 0
        async with link.sending:
            indexes = [job.intent_index for job in batch.jobs if job.intent_index is not None]
            proofs = await self._services.audit.job_proofs(
                (batch.client.entry_index, *indexes), link.held_size, cosigned_size
            )
            items = tuple(
                JobItem(
                    item=job.item,
                    signed=job.signed,
                    detail=job.detail,
                    entry=proofs.entries[place],
                    index=indexes[place - 1],
                    inclusion=proofs.inclusion[place],
                )
                for place, job in enumerate(batch.jobs, start=1)
            )
            await link.send(
                JobMessage(
                    profile=self.profile.name,
                    fence=batch.jobs[0].fence,
                    envelope=batch.request.envelope,
                    membership=Membership(
                        entry=proofs.entries[0],
                        index=batch.client.entry_index,
                        inclusion=proofs.inclusion[0],
                        request_key=batch.client.request_key,
                        grant=batch.grant,
                    ),
                    checkpoint=proofs.head.note,
                    old_size=link.held_size,
                    consistency=proofs.consistency,
                    items=items,
                    cosigned=cosigned,
                    cosigned_consistency=proofs.cosigned,
                )
            )
            link.held_size = proofs.head.size

    async def _settle(self, request: Request, ended: tuple[_Ended, ...]) -> None:
        """Write what became of items of one request, in one commit, then tell whoever waits."""
        checked = [replace(one, answer=self._checked(one.intent, one.answer)) for one in ended]

        async def write(tx: Tx) -> list[tuple[int, JobStep]]:
            return [step for one in checked if (step := await self._write_ended(tx, one)) is not None]

        steps = await self._write(write)
        if self.profile.witness != "off":
            self._services.witnesses.want(self.profile, self._services.store.head.size - 1)
        for step in dict.fromkeys(step for _, step in steps):
            self._services.observer.jobs(request, (item for item, taken in steps if taken == step), step)
        self._services.changed(request.id)
        self._rest.settled([one.answer for one in checked])
        if any(isinstance(one.answer, ItemRefused) for one in checked):
            self.wake()  # it may stand in the queue again

    async def _write_ended(self, tx: Tx, ended: _Ended) -> tuple[int, JobStep] | None:
        """The item and what became of it; None if the answer is for another operation than the open one."""
        current = await tx.job(ended.job.request_id, ended.job.item)
        settled = settle(current, asked=ended.job, answer=ended.answer)
        if current is None or settled is None:
            return None
        now_ms = await tx.now_ms()
        index = await tx.append(encode_entry(_settled_entry(current, ended, settled, now_ms)))
        if settled.raises_fence and (lease := await tx.lease(self.profile.name)) is not None:
            await tx.put_lease(lease_raised(lease))
        await tx.put_job(settled.recorded(index))
        return current.item, _step(settled, ended.answer)

    def _checked(self, intent: Intent, answer: ItemDone | ItemRefused) -> ItemDone | ItemRefused:
        """A signature counts only if the profile's certificate verifies it."""
        if isinstance(answer, ItemRefused):
            return answer
        try:
            mechanism = Mechanism(intent.mechanism)
            verify_digest(leaf_spki(self.profile.chain), mechanism, bytes.fromhex(intent.digest), answer.signature)
        except PrivysealError as error:
            return ItemRefused(
                request=answer.request,
                item=answer.item,
                fence=answer.fence,
                branch=error.branch,
                code=error.code,
                message=f"agent {self.profile.agent!r} answered with a signature that does not hold: {error.message}",
            )
        return answer

    # -- after a lost link or a restart -------------------------------------------------------------------------

    async def _resolve_open(self, link: AgentLink) -> None:
        """Ask the agent for every open intent of this profile before anything new is claimed."""

        async def read(tx: ReadTx) -> list[tuple[Job, Request | None, bytes]]:
            jobs = [job for job in await tx.open_jobs() if job.profile == self.profile.name]
            return [
                (job, await tx.request(job.request_id), (await tx.entries(job.intent_index or 0, 1))[0]) for job in jobs
            ]

        try:
            while (open_jobs := await self._services.store.read(read)) or self._left_over:
                self._left_over = False
                for job, request, entry in open_jobs:
                    intent = parse_entry(entry)
                    if isinstance(intent, Intent) and request is not None:
                        ended = _Ended(job=job, intent=intent, answer=await self._ask(link, job))
                        await self._settle(request, (ended,))
        except UnavailableError as error:
            if error.code != "agent.link_lost":
                raise
            return
        if self._link is not link:  # another link has come meanwhile, and is not settled yet
            return
        self._resolving = False
        self.wake()

    async def _ask(self, link: AgentLink, job: Job) -> ItemDone | ItemRefused:
        key = (job.request_id, job.item, job.fence)
        answer = link.expect(key)
        return answer_told(await link.outcome(key)) or await answer


def _step(settled: Settled, answer: ItemDone | ItemRefused) -> JobStep:
    code = "" if isinstance(answer, ItemDone) else answer.code
    outcome = "signed" if settled.record is Record.OK else settled.record.value
    return JobStep(state=settled.job.state.value, outcome=outcome, code=code)


def _settled_entry(job: Job, ended: _Ended, settled: Settled, now_ms: int) -> Result | Unknown:
    if isinstance(ended.answer, ItemDone):
        return result_entry(job, ended.intent, now_ms, signature=ended.answer.signature)
    if settled.record is Record.UNKNOWN:
        return unknown_entry(job, now_ms, ended.answer.code)
    return result_entry(job, ended.intent, now_ms, outcome=settled.record.value, code=ended.answer.code)
