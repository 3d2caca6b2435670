# SPDX-License-Identifier: Apache-2.0
"""Rows of a hub's database as the values of the Store port, and back."""

from typing import Any, Final

import msgspec

from privyseal.ports.queue import Job, JobState, Lease, Queue, QueuedRequest, Request, RequestUse, Standing
from privyseal.ports.store import Enrolment, Grant, JoinCode, ProfileRow
from privyseal.storage.calls import Row

__all__ = [
    "ENROLMENT_COLUMNS",
    "GRANT_COLUMNS",
    "JOB_COLUMNS",
    "JOIN_CODE_COLUMNS",
    "LEASE_COLUMNS",
    "PROFILE_COLUMNS",
    "REQUEST_COLUMNS",
    "enrolment_from",
    "enrolment_row",
    "grant_from",
    "grant_row",
    "job_from",
    "job_row",
    "join_code_from",
    "join_code_row",
    "lease_from",
    "lease_row",
    "profile_from",
    "profile_row",
    "queue_from",
    "queued_from",
    "request_from",
    "request_row",
    "standing_from",
    "use_from",
]

JOIN_CODE_COLUMNS: Final = "secret_sha256, role, name, profiles, expires_ms, statement_sha256"
ENROLMENT_COLUMNS: Final = "role, name, certificate_sha256, request_key, profiles, salt, entry_index, revoked_ms"
GRANT_COLUMNS: Final = "request_key, profile, envelope, entry_index"
PROFILE_COLUMNS: Final = (
    "name, agent, token, chain, level, opaque, token_label, token_serial, hardware, entry_index, witness, test"
)
REQUEST_COLUMNS: Final = (
    "id, client, idempotency_key, profile, envelope, created_ms, not_after_ms,"
    " queued_ms, priority, wanted_key, cancelled_ms"
)
JOB_COLUMNS: Final = (
    "seq, request_id, item, profile, state, token, fence, attempts, intent_index, result_index,"
    " signature, branch, code, message"
)
LEASE_COLUMNS: Final = "token, holder, fence, expires_ms"


def _names_text(names: tuple[str, ...]) -> str:
    return msgspec.json.encode(names).decode()


def _names_from(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])


def join_code_row(code: JoinCode) -> Row:
    """In the order of JOIN_CODE_COLUMNS."""
    return (
        code.secret_sha256,
        code.role,
        code.name,
        _names_text(code.profiles),
        code.expires_ms,
        code.statement_sha256,
    )


def join_code_from(row: Row) -> JoinCode:
    """From JOIN_CODE_COLUMNS."""
    secret_sha256, role, name, profiles, expires_ms, statement_sha256 = row
    return JoinCode(
        secret_sha256=secret_sha256,
        role=role,
        name=name,
        profiles=_names_from(profiles),
        expires_ms=expires_ms,
        statement_sha256=statement_sha256,
    )


def enrolment_row(enrolment: Enrolment) -> Row:
    """In the order of ENROLMENT_COLUMNS."""
    return (
        enrolment.role,
        enrolment.name,
        enrolment.certificate_sha256,
        enrolment.request_key,
        _names_text(enrolment.profiles),
        enrolment.salt,
        enrolment.entry_index,
        enrolment.revoked_ms,
    )


def enrolment_from(row: Row) -> Enrolment:
    """From ENROLMENT_COLUMNS."""
    role, name, certificate_sha256, request_key, profiles, salt, entry_index, revoked_ms = row
    return Enrolment(
        role=role,
        name=name,
        certificate_sha256=certificate_sha256,
        request_key=request_key,
        profiles=_names_from(profiles),
        salt=salt,
        entry_index=entry_index,
        revoked_ms=revoked_ms,
    )


def grant_row(grant: Grant) -> Row:
    """In the order of GRANT_COLUMNS."""
    return grant.request_key, grant.profile, grant.envelope, grant.entry_index


def grant_from(row: Row) -> Grant:
    """From GRANT_COLUMNS."""
    request_key, profile, envelope, entry_index = row
    return Grant(request_key=request_key, profile=profile, envelope=envelope, entry_index=entry_index)


def profile_row(profile: ProfileRow) -> Row:
    """In the order of PROFILE_COLUMNS."""
    return (
        profile.name,
        profile.agent,
        profile.token,
        msgspec.json.encode(profile.chain).decode(),
        profile.level,
        _names_text(profile.opaque),
        profile.token_label,
        profile.token_serial,
        int(profile.hardware),
        profile.entry_index,
        profile.witness,
        int(profile.test),
    )


def profile_from(row: Row) -> ProfileRow:
    """From PROFILE_COLUMNS."""
    name, agent, token, chain, level, opaque, token_label, token_serial, hardware, entry_index, witness, test = row
    return ProfileRow(
        name=name,
        agent=agent,
        token=token,
        chain=msgspec.json.decode(chain, type=tuple[bytes, ...]),
        level=level,
        opaque=_names_from(opaque),
        token_label=token_label,
        token_serial=token_serial,
        hardware=bool(hardware),
        entry_index=entry_index,
        witness=witness,
        test=bool(test),
    )


def request_row(request: Request) -> Row:
    """In the order of REQUEST_COLUMNS."""
    return (
        request.id,
        request.client,
        request.idempotency_key,
        request.profile,
        request.envelope,
        request.created_ms,
        request.not_after_ms,
        request.queued_ms,
        request.priority,
        request.key,
        request.cancelled_ms,
    )


def request_from(row: Row) -> Request:
    """From REQUEST_COLUMNS."""
    request_id, client, idempotency_key, profile, envelope, created_ms, not_after_ms, *rest = row
    queued_ms, priority, key, cancelled_ms = rest
    return Request(
        id=request_id,
        client=client,
        idempotency_key=idempotency_key,
        profile=profile,
        envelope=envelope,
        created_ms=created_ms,
        not_after_ms=not_after_ms,
        queued_ms=queued_ms,
        priority=priority,
        key=key,
        cancelled_ms=cancelled_ms,
    )


def queued_from(row: Row) -> QueuedRequest:
    """From REQUEST_COLUMNS followed by the place of the first queued job and their number."""
    *request, seq, items = row
    return QueuedRequest(request=request_from(request), seq=int(seq), items=int(items))


def use_from(row: Row) -> RequestUse:
    """From REQUEST_COLUMNS followed by the token and the number of the jobs."""
    *request, token, items = row
    return RequestUse(request=request_from(request), token=token, items=int(items))


def standing_from(row: Row) -> Standing:
    """From state, token, number of jobs, and the highest index of their RESULT entries."""
    state, token, items, result_index = row
    return Standing(state=JobState(state), token=token, items=int(items), result_index=result_index)


def job_row(job: Job) -> tuple[Any, ...]:
    """In the order of JOB_COLUMNS."""
    return (
        job.seq,
        job.request_id,
        job.item,
        job.profile,
        job.state.value,
        job.token,
        job.fence,
        job.attempts,
        job.intent_index,
        job.result_index,
        job.signature,
        job.branch,
        job.code,
        job.message,
    )


def job_from(row: Row) -> Job:
    """From JOB_COLUMNS followed by `signed, detail`."""
    seq, request_id, item, profile, state, token, fence, attempts, *rest = row
    intent_index, result_index, signature, branch, code, message, signed, detail = rest
    return Job(
        seq=seq,
        request_id=request_id,
        item=item,
        profile=profile,
        signed=signed,
        detail=detail,
        state=JobState(state),
        token=token,
        fence=fence,
        attempts=attempts,
        intent_index=intent_index,
        result_index=result_index,
        signature=signature,
        branch=branch,
        code=code,
        message=message,
    )


def queue_from(row: Row) -> Queue:
    """From profile, jobs, how many of them are queued, and the time of the oldest of these."""
    profile, jobs, queued, oldest_ms = row
    return Queue(profile=profile, queued=int(queued), under_way=int(jobs) - int(queued), oldest_ms=oldest_ms)


def lease_row(lease: Lease) -> Row:
    """In the order of LEASE_COLUMNS."""
    return lease.token, lease.holder, lease.fence, lease.expires_ms


def lease_from(row: Row) -> Lease:
    """From LEASE_COLUMNS."""
    token, holder, fence, expires_ms = row
    return Lease(token=token, holder=holder, fence=fence, expires_ms=expires_ms)
