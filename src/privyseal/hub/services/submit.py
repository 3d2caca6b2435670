# SPDX-License-Identifier: Apache-2.0
"""Signing requests: accepted once, and put where they wait."""

import asyncio
import datetime as dt
import hashlib
from dataclasses import dataclass
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
from privyseal.hub.services.claiming import Batch
from privyseal.hub.services.denials import Denials
from privyseal.hub.services.dispatch import Dispatch
from privyseal.hub.services.lane import Lane
from privyseal.hub.services.observer import JobStep, Observer
from privyseal.hub.services.queue_board import QueueBoard
from privyseal.hub.services.served import ServedProfile
from privyseal.hub.services.witnesses import Witnesses
from privyseal.identity.authority import GrantStatement, open_authority
from privyseal.identity.trust import PinnedTrust
from privyseal.policy.decide import Facts, decide
from privyseal.policy.fair_queue import Priority, priority_named
from privyseal.ports.clock import Clock
from privyseal.ports.queue import Job, QueuedRequest, Request
from privyseal.ports.store import Enrolment, ProfileRow, ReadTx, Store, Tx
from privyseal.wire.api import SignatureItem, SignatureRequest
from privyseal.wire.certificate_changed import certificate_changed
from privyseal.wire.statement import RequestStatement, open_request

__all__ = ["Accepted", "Requests"]

_CLOCK_SKEW_MS: Final = 120_000
_FOR_EVER_MS: Final = 2**53 - 1


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


class Requests:
    """Accepts requests."""

    def __init__(
        self,
        *,
        store: Store,
        dispatch: Dispatch,
        board: QueueBoard,
        witnesses: Witnesses,
        denials: Denials,
        observer: Observer,
        trust: PinnedTrust,
        clock: Clock,
    ) -> None:
        self._observer = observer
        self._store = store
        self._dispatch = dispatch
        self._board = board
        self._witnesses = witnesses
        self._denials = denials
        self._trust = trust
        self._clock = clock

    async def submit(self, caller: Enrolment, body: SignatureRequest) -> Accepted:
        """Accept a request; the same request again is the same request.

        Raises:
            DeniedError: a rule of `policy`, after a `deny` entry.
            ConflictError: `idempotency.conflict` if the key was used for another request; `certificate.changed` if it
                wants a key with which no token signs for the profile.
            ConfigError: `profile.unknown`. TokenError: what the agent announced. UnavailableError: `agent.offline`,
                `queue.full`.
            MalformedInputError, VerificationError: the statement, a preimage, or `request.priority`.
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
            queued_ms=self._clock(),
            priority=priority_named(body.priority),
            key=body.key,
        )
        jobs = _check_items(statement, request_id, body.preimages)
        asked = _Asked(caller=caller, statement=statement, request=request, jobs=jobs)
        try:
            served = await self._admit(asked)
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
        return await self._enqueue(asked, served)

    async def _earlier(self, caller: Enrolment, idempotency_key: str, request_id: str) -> str | None:
        async def read(tx: ReadTx) -> Request | None:
            return await tx.request_by_idempotency_key(caller.name, idempotency_key)

        return _same_or_conflict(await self._store.read(read), request_id)

    async def _admit(self, asked: _Asked) -> ServedProfile:
        statement = asked.statement
        served = self._dispatch.profile(statement.profile)
        if served is None:
            names = [one.name for one in self._dispatch.profiles if not one.profile.is_device]
            raise ConfigError(
                "profile.unknown",
                f"there is no key profile {statement.profile!r} at hub {self._trust.bundle.hub!r}",
                hint=f"known key profiles: {', '.join(names) or 'none; no agent has announced one yet'}",
            )
        wanted = served.for_line(self._board.line(asked.request))
        has_token = wanted.has_token
        problem = wanted.problem if has_token else None
        if problem is not None and not wanted.profile.chain:
            raise problem
        decision = decide(await self._facts(asked, wanted.profile if has_token else served.profile))
        if not decision.allow:
            reason = decision.reasons[0]
            raise DeniedError(reason.code, reason.message, hint=reason.hint)
        if asked.request.key and not has_token and not await self._dispatch.may_serve(wanted.line):
            raise certificate_changed(statement.profile)
        if problem is not None:
            raise problem
        self._witnesses.ensure_possible(wanted.profile)
        if not wanted.online:
            raise wanted.offline()
        self._board.ensure_room(asked.caller.name, len(asked.jobs), wanted.seconds_for(self._board.items))
        return wanted

    async def _facts(self, asked: _Asked, profile: ProfileRow) -> Facts:
        highest, dates = self._board.highest(asked.caller.name), _dates_ms(profile.chain)
        return Facts(
            caller=asked.caller.name,
            profile=asked.statement.profile,
            allowed_profiles=asked.caller.profiles,
            level=profile.level,
            granted_formats=await self._granted(asked) if profile.level == "pinned" else None,
            format=asked.statement.format,
            opaque_format=format_named(asked.statement.format).binding is Binding.OPAQUE,
            opaque_formats=profile.opaque,
            created_ms=asked.statement.created,
            not_after_ms=asked.statement.not_after,
            longest_ms=self._board.longest_ms,
            now_ms=self._clock(),
            clock_skew_ms=_CLOCK_SKEW_MS,
            priority=Priority(asked.request.priority).name.lower(),
            priority_allowed=asked.request.priority <= highest,
            certificate_not_before_ms=dates[0],
            certificate_not_after_ms=dates[1],
            is_device=profile.is_device,
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

    async def _enqueue(self, asked: _Asked, served: ServedProfile) -> Accepted:
        """Queue the request; if a token has nothing to do, claim in the same transaction (one fsync for both)."""
        request, items = asked.request, len(asked.jobs)
        priority = Priority(request.priority)
        is_first = not self._board.lines(request.profile)
        lane = served.idle_lane(lambda one: one.reserve(priority)) if is_first else None
        # Here: they ask the loop for the time.
        room = 0 if lane is None else lane.room(request.profile, priority)
        since_s = asyncio.get_running_loop().time()

        async def write(tx: Tx) -> tuple[str | None, QueuedRequest | None, Batch | None]:
            earlier = await tx.request_by_idempotency_key(asked.caller.name, asked.statement.idempotency_key)
            if earlier is not None:
                return _same_or_conflict(earlier, request.id), None, None
            queued = QueuedRequest(request=request, seq=await tx.add_request(request, asked.jobs), items=items)
            await tx.tell(request.id)
            if lane is None:
                return None, queued, None
            pick = self._board.first_pick(queued, room)
            batch = await lane.claim(tx, lane.members[request.profile].profile, (pick,), since_s=since_s)
            return None, queued if batch is None else batch.left[request.id], batch

        try:
            earlier_id, queued, batch = await self._store.write(write)
        except BaseException:
            if lane is not None:
                lane.release()
            raise
        if earlier_id is None:
            self._observer.jobs(request, (job.item for job in asked.jobs), JobStep(state="queued"))
        if queued is not None:
            self._board.put(queued)
        self._go_on(lane, batch, priority, is_new=earlier_id is None)
        self._dispatch.wake(request.profile)
        settled = batch is not None and not batch.jobs
        return Accepted(request_id=earlier_id or request.id, fresh=earlier_id is None and not settled)

    def _go_on(self, lane: Lane | None, batch: Batch | None, priority: Priority, *, is_new: bool) -> None:
        """Use the place in a lane's window that was reserved, or give it back."""
        if lane is None:
            return
        if batch is not None:
            lane.start(batch, priority)
        elif is_new:
            lane.unclaimed()
        else:
            lane.release()


def _dates_ms(chain: tuple[bytes, ...]) -> tuple[int, int]:
    """From when to when the first certificate is valid; a USB device has none."""
    if not chain:
        return 0, _FOR_EVER_MS
    certificate = x509.load_der_x509_certificate(chain[0])
    return _milliseconds(certificate.not_valid_before_utc), _milliseconds(certificate.not_valid_after_utc)


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
