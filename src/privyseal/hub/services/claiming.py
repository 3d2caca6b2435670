# SPDX-License-Identifier: Apache-2.0
"""Claiming: the oldest items of one request leave the queue, and their INTENT entries enter the log with them."""

from dataclasses import dataclass, replace
from typing import Final

from privyseal.hub.entries import IntentFacts, deny_entry, intent_entry
from privyseal.hub.jobs import claimed
from privyseal.ports.store import Enrolment, Job, JobState, ProfileRow, Request, Tx
from privyseal.tlog.entry import Intent, encode_entry
from privyseal.wire.statement import accepted_statement

__all__ = ["BATCH_ITEMS", "Batch", "claim_batch"]

#: Items of one request that share a job, and so an fsync at hub and agent.
BATCH_ITEMS: Final = 64
#: Most bytes of their preimages together: a job is one message of the agent link.
_BATCH_PREIMAGE_BYTES: Final = 8 << 20

_LATE: Final = {
    "request.expired": "the request waited in the queue until its own not_after had passed",
    "identity.revoked": "the client's standing was ended while the request waited",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Items whose INTENT is durable (or about to be, in the transaction that made this).

    Attributes:
        grant: The client's signed grant, for a pinned profile.
        jobs: Empty if the items were refused instead: they had waited too long.
        refused: Those.
    """

    request: Request
    client: Enrolment
    grant: bytes = b""
    jobs: tuple[Job, ...] = ()
    intents: tuple[Intent, ...] = ()
    refused: tuple[Job, ...] = ()


async def claim_batch(tx: Tx, profile: ProfileRow, fence: int) -> Batch | None:
    """Claim the oldest queued items of one request; None if there is nothing to claim."""
    queued = await tx.next_queued(profile.name, BATCH_ITEMS, _BATCH_PREIMAGE_BYTES)
    agent = await tx.enrolment("agent", profile.agent)
    request = await tx.request(queued[0].request_id) if queued else None
    if request is None or agent is None:
        return None
    jobs = tuple(job for job in queued if job.request_id == request.id)
    client = await tx.enrolment("client", request.client)
    now_ms = await tx.now_ms()
    if client is None:
        former = next(one for one in await tx.enrolments() if (one.role, one.name) == ("client", request.client))
        return await _refuse(tx, request, former, jobs, "identity.revoked")
    if now_ms > request.not_after_ms:
        return await _refuse(tx, request, client, jobs, "request.expired")
    grant = await tx.grant(client.request_key, profile.name) if profile.level == "pinned" else None
    facts = IntentFacts(
        statement=accepted_statement(request.envelope),
        profile=profile,
        client_key=client.request_key,
        agent_key=agent.request_key,
        authority=client.entry_index if grant is None else grant.entry_index,
        fence=fence,
        now_ms=now_ms,
    )
    intents = tuple(intent_entry(job, facts) for job in jobs)
    taken = []
    for job, intent in zip(jobs, intents, strict=True):
        index = await tx.append(encode_entry(intent))
        taken.append(claimed(job, fence=fence, intent_index=index))
        await tx.put_job(taken[-1])
    envelope = b"" if grant is None else grant.envelope
    return Batch(request=request, client=client, grant=envelope, jobs=tuple(taken), intents=intents)


async def _refuse(tx: Tx, request: Request, client: Enrolment, jobs: tuple[Job, ...], code: str) -> Batch:
    """The items leave the queue unsigned, on record."""
    entry = deny_entry(client, request.profile, request.id, code, await tx.now_ms(), count=len(jobs))
    await tx.append(encode_entry(entry))
    late = tuple(replace(job, state=JobState.FAILED, branch="denied", code=code, message=_LATE[code]) for job in jobs)
    for job in late:
        await tx.put_job(job)
    return Batch(request=request, client=client, refused=late)
