# SPDX-License-Identifier: Apache-2.0
"""Claiming: items leave the queue, and their INTENT entries enter the log with them, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from privyseal.hub.entries import IntentFacts, deny_entry, intent_entry
from privyseal.hub.jobs import claimed
from privyseal.policy.fair_queue import Pick
from privyseal.ports.queue import Job, JobState, Lease, QueuedRequest, Request
from privyseal.ports.store import Enrolment, ProfileRow, Tx
from privyseal.tlog.entry import Intent, encode_entry
from privyseal.wire.statement import accepted_statement

__all__ = ["BATCH_ITEMS", "Batch", "Part", "claim_picks", "refuse_late"]

#: Items that share a job, and so an fsync at hub and agent.
BATCH_ITEMS: Final = 64
#: Most bytes of their preimages together: a job is one message of the agent link.
_BATCH_PREIMAGE_BYTES: Final = 8 << 20

_LATE: Final = {
    "request.expired": "the request waited in the queue until its own not_after had passed",
    "identity.revoked": "the client's standing was ended while the request waited",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Items of one request whose INTENT is durable (or about to be, in the transaction that made this).

    Attributes:
        grant: The client's signed grant, for a pinned profile.
        jobs: Empty if the items were refused instead: they had waited too long, or are not wanted any more.
        refused: Those.
    """

    request: Request
    client: Enrolment
    grant: bytes = b""
    jobs: tuple[Job, ...] = ()
    intents: tuple[Intent, ...] = ()
    refused: tuple[Job, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one transaction claimed for a token.

    Attributes:
        profile: The key profile as the token serves it.
        lease: Under which it was claimed.
        lease_ms: How long that lasted when the database was asked.
        since_s: When asking it began, by the event loop's clock.
        parts: In the order in which the token shall sign.
        left: The same requests as they wait on; by request, None for one of which nothing is queued any more.
    """

    profile: ProfileRow
    lease: Lease
    lease_ms: int
    since_s: float
    parts: tuple[Part, ...]
    left: dict[str, QueuedRequest | None]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs that are to be sent."""
        return tuple(job for part in self.parts for job in part.jobs)


async def claim_picks(
    tx: Tx, profile: ProfileRow, lease: Lease, *, lease_ms: int, since_s: float, picks: Sequence[Pick]
) -> Batch | None:
    """Claim what was picked, as far as it is queued still; None if the profile's agent has no standing."""
    agent = await tx.enrolment("agent", profile.agent)
    if agent is None:
        return None
    claiming = _Claiming(tx, profile, agent, lease)
    parts: list[Part] = []
    left: dict[str, QueuedRequest | None] = {}
    for pick in picks:
        request_id = pick.waiting.request_id
        if request_id not in left and claiming.room_bytes > 0:
            part = await claiming.claim(request_id, pick.items)
            if part is not None:
                parts.append(part)
                await tx.tell(request_id)
        left[request_id] = await tx.queued_request(request_id)
    return Batch(profile=profile, lease=lease, lease_ms=lease_ms, since_s=since_s, parts=tuple(parts), left=left)


class _Claiming:
    """One transaction's claims: clients that come more than once are looked up once."""

    def __init__(self, tx: Tx, profile: ProfileRow, agent: Enrolment, lease: Lease) -> None:
        self._tx = tx
        self._profile = profile
        self._agent = agent
        self._lease = lease
        self._clients: dict[str, Enrolment | None] = {}
        self.room_bytes = _BATCH_PREIMAGE_BYTES

    async def claim(self, request_id: str, items: int) -> Part | None:
        tx = self._tx
        request = await tx.request(request_id)
        jobs = await tx.queued_jobs(request_id, items, self.room_bytes)
        if request is None or not jobs:
            return None
        self.room_bytes -= sum(len(job.signed) + len(job.detail) for job in jobs)
        client = await self._client(request.client)
        if client is None:
            former = next(one for one in await tx.enrolments() if (one.role, one.name) == ("client", request.client))
            return await _refuse(tx, request, former, jobs, "identity.revoked")
        if await tx.now_ms() > request.not_after_ms:
            return await _refuse(tx, request, client, jobs, "request.expired")
        return await self._write_intents(request, client, jobs)

    async def _client(self, name: str) -> Enrolment | None:
        if name not in self._clients:
            self._clients[name] = await self._tx.enrolment("client", name)
        return self._clients[name]

    async def _write_intents(self, request: Request, client: Enrolment, jobs: tuple[Job, ...]) -> Part:
        tx, pinned = self._tx, self._profile.level == "pinned"
        grant = await tx.grant(client.request_key, self._profile.name) if pinned else None
        facts = IntentFacts(
            statement=accepted_statement(request.envelope),
            profile=self._profile,
            client_key=client.request_key,
            agent_key=self._agent.request_key,
            authority=client.entry_index if grant is None else grant.entry_index,
            fence=self._lease.fence,
            now_ms=await tx.now_ms(),
        )
        intents = tuple(intent_entry(job, facts) for job in jobs)
        taken = []
        for job, intent in zip(jobs, intents, strict=True):
            index = await tx.append(encode_entry(intent))
            taken.append(claimed(job, token=self._lease.token, fence=self._lease.fence, intent_index=index))
            await tx.put_job(taken[-1])
        envelope = b"" if grant is None else grant.envelope
        return Part(request=request, client=client, grant=envelope, jobs=tuple(taken), intents=intents)


async def refuse_late(tx: Tx, request_id: str) -> Part | None:
    """Let a request that has passed its own not_after leave the queue; None if nothing of it is queued."""
    request = await tx.request(request_id)
    jobs = await tx.queued_jobs(request_id, BATCH_ITEMS, _BATCH_PREIMAGE_BYTES)
    if request is None or not jobs or await tx.now_ms() <= request.not_after_ms:
        return None
    enrolments = await tx.enrolments()
    client = next(one for one in enrolments if (one.role, one.name) == ("client", request.client))
    await tx.tell(request_id)
    return await _refuse(tx, request, client, jobs, "request.expired")


async def _refuse(tx: Tx, request: Request, client: Enrolment, jobs: tuple[Job, ...], code: str) -> Part:
    """The items leave the queue unsigned, on record."""
    entry = deny_entry(client, request.profile, request.id, code, await tx.now_ms(), count=len(jobs))
    await tx.append(encode_entry(entry))
    late = tuple(replace(job, state=JobState.FAILED, branch="denied", code=code, message=_LATE[code]) for job in jobs)
    for job in late:
        await tx.put_job(job)
    return Part(request=request, client=client, refused=late)
