# SPDX-License-Identifier: Apache-2.0
"""Signing requests: accepted once, answered the same way ever after."""

import asyncio
import contextlib
import datetime as dt
import hashlib
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from cryptography import x509

from privyseal.errors import (
    ConfigError,
    ConflictError,
    DeniedError,
    MalformedInputError,
    PrivysealError,
)
from privyseal.formats.model import Binding, Preimage
from privyseal.formats.registry import format_named
from privyseal.hub.entries import preimage_facts
from privyseal.hub.jobs import has_ended
from privyseal.hub.services.audit import Audit
from privyseal.hub.services.claiming import Batch
from privyseal.hub.services.denials import Denials
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.lane import Lane
from privyseal.hub.services.observer import JobStep, Observer
from privyseal.hub.services.witnesses import Witnesses
from privyseal.identity.authority import GrantStatement, open_authority
from privyseal.identity.trust import PinnedTrust
from privyseal.policy.decide import Facts, decide
from privyseal.ports.clock import Clock
from privyseal.ports.store import Enrolment, Job, JobState, ProfileRow, ReadTx, Request, Store, Tx
from privyseal.wire.api import ItemView, RequestView, SignatureItem, SignatureRequest
from privyseal.wire.statement import RequestStatement, accepted_statement, open_request

__all__ = ["Accepted", "Question", "Requests"]

_CLOCK_SKEW_MS: Final = 120_000
#: Most items of one answer.
_VIEW_ITEMS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    caller: Enrolment
    statement: RequestStatement
    request: Request
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A request that the hub has taken; `fresh` if it is new and nothing has become of it yet."""

    request_id: str
    fresh: bool


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


class Requests:
    """Accepts requests and tells what became of them."""

    def __init__(
        self,
        *,
        store: Store,
        dispatch: Dispatch,
        audit: Audit,
        witnesses: Witnesses,
        denials: Denials,
        observer: Observer,
        trust: PinnedTrust,
        clock: Clock,
    ) -> None:
        self._observer = observer
        self._store = store
        self._dispatch = dispatch
        self._audit = audit
        self._witnesses = witnesses
        self._denials = denials
        self._trust = trust
        self._clock = clock
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

    async def submit(self, caller: Enrolment, body: SignatureRequest) -> Accepted:
        """Accept a request; the same request again is the same request.

        Raises:
            DeniedError: a rule of `policy`, after a `deny` entry.
            ConflictError: `idempotency.conflict` if the key was used for another request.
            ConfigError: `profile.unknown`. TokenError: what the agent announced. UnavailableError: `agent.offline`.
            MalformedInputError, VerificationError: the statement or a preimage.
        """
        statement, request_id = open_request(body.envelope, caller.request_key)
        if statement.hub != self._trust.bundle.hub:
            raise MalformedInputError(
                "request.hub", f"the request is for hub {statement.hub!r}, this is {self._trust.bundle.hub!r}"
            )
        request = Request(
            id=request_id,
            client=caller.name,
            idempotency_key=statement.idempotency_key,
            profile=statement.profile,
            envelope=body.envelope,
            created_ms=statement.created,
            not_after_ms=statement.not_after,
        )
        jobs = _check_items(statement, request_id, body.preimages)
        asked = _Asked(caller=caller, statement=statement, request=request, jobs=jobs)
        try:
            lane = await self._admit(asked)
        except PrivysealError as refusal:
            # What was accepted once stays accepted, whatever stands in the way of a new request now.
            earlier = await self._earlier(caller, statement.idempotency_key, request_id)
            if earlier is None:
                if isinstance(refusal, DeniedError):
                    await self._denials.refuse(
                        caller, profile=statement.profile, request_id=request_id, code=refusal.code
                    )
                raise
            return Accepted(request_id=earlier, fresh=False)
        return await self._enqueue(asked, lane)

    async def _earlier(self, caller: Enrolment, idempotency_key: str, request_id: str) -> str | None:
        async def read(tx: ReadTx) -> Request | None:
            return await tx.request_by_idempotency_key(caller.name, idempotency_key)

        return _same_or_conflict(await self._store.read(read), request_id)

    async def _admit(self, asked: _Asked) -> Lane:
        statement = asked.statement
        lane = self._dispatch.lane(statement.profile)
        if lane is None:
            names = [one.profile.name for one in self._dispatch.lanes]
            raise ConfigError(
                "profile.unknown",
                f"there is no key profile {statement.profile!r} at hub {self._trust.bundle.hub!r}",
                hint=f"known key profiles: {', '.join(names) or 'none; no agent has announced one yet'}",
            )
        if lane.problem is not None and not lane.profile.chain:
            raise lane.problem
        decision = decide(await self._facts(asked, lane))
        if not decision.allow:
            reason = decision.reasons[0]
            raise DeniedError(reason.code, reason.message, hint=reason.hint)
        if lane.problem is not None:
            raise lane.problem
        self._witnesses.ensure_possible(lane.profile)
        if not lane.online:
            raise lane.offline()
        return lane

    async def _facts(self, asked: _Asked, lane: Lane) -> Facts:
        certificate = x509.load_der_x509_certificate(lane.profile.chain[0])
        return Facts(
            caller=asked.caller.name,
            profile=asked.statement.profile,
            allowed_profiles=asked.caller.profiles,
            level=lane.profile.level,
            granted_formats=await self._granted(asked) if lane.profile.level == "pinned" else None,
            format=asked.statement.format,
            opaque_format=format_named(asked.statement.format).binding is Binding.OPAQUE,
            opaque_formats=lane.profile.opaque,
            created_ms=asked.statement.created,
            not_after_ms=asked.statement.not_after,
            now_ms=self._clock(),
            clock_skew_ms=_CLOCK_SKEW_MS,
            certificate_not_before_ms=_milliseconds(certificate.not_valid_before_utc),
            certificate_not_after_ms=_milliseconds(certificate.not_valid_after_utc),
        )

    async def _granted(self, asked: _Asked) -> tuple[str, ...] | None:
        async def read(tx: ReadTx) -> bytes | None:
            grant = await tx.grant(asked.caller.request_key, asked.statement.profile)
            return None if grant is None else grant.envelope

        envelope = await self._store.read(read)
        if envelope is None:
            return None
        try:
            grant = open_authority(envelope, self._trust.bundle, self._clock()).statement
        except PrivysealError:  # expired, or signed by a quorum that no longer stands: as if it were not there
            return None
        return grant.formats if isinstance(grant, GrantStatement) else None

    async def _enqueue(self, asked: _Asked, lane: Lane) -> Accepted:
        """Queue the request; if the lane is idle, claim in the same transaction (one fsync for both)."""
        reserved = lane.reserve()

        async def write(tx: Tx) -> tuple[str | None, Batch | None]:
            earlier = await tx.request_by_idempotency_key(asked.caller.name, asked.statement.idempotency_key)
            if earlier is not None:
                return _same_or_conflict(earlier, asked.request.id), None
            await tx.add_request(asked.request, asked.jobs)
            return None, await lane.claim(tx) if reserved else None

        try:
            earlier_id, batch = await self._store.write(write)
        except BaseException:
            if reserved:
                lane.release()
            raise
        if earlier_id is None:
            self._observer.jobs(asked.request, (job.item for job in asked.jobs), JobStep(state="queued"))
        if batch is not None:
            lane.start(batch)
        elif reserved:
            lane.release()
        if batch is None or len(batch.jobs) < len(asked.jobs):
            lane.wake()
        settled = batch is not None and not batch.jobs
        return Accepted(request_id=earlier_id or asked.request.id, fresh=earlier_id is None and not settled)

    async def wait(self, caller: Enrolment, question: Question, *, fresh: bool = False) -> RequestView:
        """What became of a request: when it is done, enough of its items have ended, or the time has passed.

        Args:
            caller: Only its own requests are shown.
            question: What is asked.
            fresh: The request was accepted just now, with nothing awaited since: there is nothing to be seen yet.

        Raises:
            ConfigError: `request.unknown`.
        """
        event = asyncio.Event()
        self._waiting.setdefault(question.request_id, []).append(event)
        try:
            view = None if fresh else await self._view(caller, question, enough=question.enough)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(question.seconds):
                    while view is None:
                        await event.wait()
                        event.clear()
                        view = await self._view(caller, question, enough=question.enough)
            return view or await self.view(caller, question)
        finally:
            self._waiting[question.request_id].remove(event)
            if not self._waiting[question.request_id]:
                del self._waiting[question.request_id]

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
        lanes = self._dispatch
        held: list[_Held] = []

        async def read(tx: ReadTx) -> RequestView | None:
            request = await tx.request(question.request_id)
            if request is None or request.client != caller.name:
                raise ConfigError("request.unknown", f"client {caller.name!r} has no request {question.request_id!r}")
            waiting = await tx.first_waiting(request.id)
            ended = tuple(takewhile(has_ended, await tx.jobs(request.id, question.first, _VIEW_ITEMS)))
            lane = lanes.lane(request.profile)
            profile = await tx.profile(request.profile) if lane is None else lane.profile
            items = await self._items(tx, profile, ended)
            if profile is not None and len(items) < len(ended):
                held.append(_Held(profile=profile, index=ended[len(items)].result_index or 0))
            is_done = waiting is None and not held
            if not is_done and len(items) < enough:
                return None
            return RequestView(
                id=request.id,
                state="done" if is_done else "waiting",
                position=0 if waiting is None else await tx.queued_before(request.profile, waiting),
                total=len(accepted_statement(request.envelope).items),
                first=question.first,
                chain=() if lane is None else lane.profile.chain,
                items=items,
            )

        view = await self._store.read(read)
        for one in held:  # asked for again also after a restart, when nobody remembers that it was
            self._witnesses.want(one.profile, one.index)
        return view

    async def _items(self, tx: ReadTx, profile: ProfileRow | None, jobs: tuple[Job, ...]) -> tuple[ItemView, ...]:
        """What became of jobs that have ended, up to the first whose signature waits for witnesses."""
        views = []
        for job in jobs:
            receipt = ""
            if job.state is JobState.SIGNED and job.result_index is not None:
                cosigned = await self._witnesses.released(tx, profile, job.result_index)
                if cosigned is None:
                    break
                receipt = await self._audit.receipt(tx, job.result_index, cosigned)
            views.append(
                ItemView(
                    state=job.state.value,
                    signature=job.signature,
                    receipt=receipt,
                    branch=job.branch,
                    code=job.code,
                    message=job.message,
                )
            )
        return tuple(views)


def _milliseconds(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)


def _same_or_conflict(earlier: Request | None, request_id: str) -> str | None:
    if earlier is None:
        return None
    if earlier.id != request_id:
        raise ConflictError(
            "idempotency.conflict",
            f"idempotency key {earlier.idempotency_key!r} was used for another request",
            hint="use a new key for a new request",
        )
    return earlier.id


def _check_items(statement: RequestStatement, request_id: str, preimages: tuple[SignatureItem, ...]) -> tuple[Job, ...]:
    """Hold every preimage against the statement; the hub believes only what it has parsed itself (promise 3)."""
    if len(preimages) != len(statement.items):
        raise MalformedInputError(
            "request.items",
            f"the statement names {len(statement.items)} items, {len(preimages)} preimages came",
        )
    jobs = []
    for place, (item, preimage) in enumerate(zip(statement.items, preimages, strict=True)):
        facts = preimage_facts(statement.format, Preimage(signed=preimage.signed, detail=preimage.detail))
        artifact = (facts.artifact.algorithm, facts.artifact.digest.hex())
        if hashlib.sha256(preimage.signed).hexdigest() != item.preimage:
            raise MalformedInputError("request.preimage", f"item {place}: the preimage is not the one in the statement")
        if artifact != (item.artifact.alg, item.artifact.digest):
            raise MalformedInputError(
                "request.artifact", f"item {place}: the preimage names another artifact than the statement"
            )
        jobs.append(
            Job(
                request_id=request_id,
                item=place,
                profile=statement.profile,
                signed=preimage.signed,
                detail=preimage.detail,
            )
        )
    return tuple(jobs)
