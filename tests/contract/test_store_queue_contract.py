# SPDX-License-Identifier: Apache-2.0
"""The contract of the Store port (ports/store.py): enrolments, profiles and queue, run on every adapter."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from privyseal.errors import ConflictError, LogIntegrityError
from privyseal.ports.queue import Job, JobState, Lease, Queue, Request
from privyseal.ports.store import Enrolment, Grant, JoinCode, ProfileRow, Store, Tx

REQUEST = Request(
    id="ab" * 32,
    client="build-1",
    idempotency_key="once",
    profile="acme-ev",
    envelope=b"envelope",
    created_ms=1,
    not_after_ms=2,
)
JOBS = tuple(
    Job(request_id=REQUEST.id, item=item, profile="acme-ev", signed=b"signed %d" % item, detail=b"detail")
    for item in range(3)
)
ENROLMENT = Enrolment(
    role="client",
    name="build-1",
    certificate_sha256=b"c" * 32,
    request_key=b"r" * 32,
    profiles=("acme-ev", 'odd "name"'),
    salt=b"s" * 16,
    entry_index=0,
)
CODE = JoinCode(
    secret_sha256=b"h" * 32,
    role="agent",
    name="office",
    profiles=("*",),
    expires_ms=5,
    statement_sha256=b"a" * 32,
)
PROFILE = ProfileRow(
    name="acme-ev",
    agent="office",
    chain=(b"leaf", b"issuer"),
    level="pinned",
    opaque=("pkcs11", "openpgp"),
    token_label="eToken",
    token_serial="0123",
    hardware=True,
    entry_index=4,
)


def adding(*jobs: Job) -> Callable[[Tx], Awaitable[None]]:
    async def operation(tx: Tx) -> None:
        await tx.add_request(REQUEST, jobs)

    return operation


async def queued(store: Store) -> tuple[Job, ...]:
    return await store.read(lambda tx: tx.next_queued("acme-ev", 10, 1 << 20))


async def test_a_join_code_is_taken_once(store: Store) -> None:
    await store.write(lambda tx: tx.add_join_code(CODE))

    assert await store.write(lambda tx: tx.take_join_code(b"other")) is None
    assert await store.write(lambda tx: tx.take_join_code(CODE.secret_sha256)) == CODE
    assert await store.write(lambda tx: tx.take_join_code(CODE.secret_sha256)) is None
    with pytest.raises(ConflictError) as caught:
        await store.write(lambda tx: tx.add_join_code(CODE))
    assert caught.value.code == "join.code_reused"


async def test_an_enrolment_is_found_by_name_and_certificate(store: Store) -> None:
    await store.write(lambda tx: tx.add_enrolment(ENROLMENT))

    assert await store.read(lambda tx: tx.enrolment("client", "build-1")) == ENROLMENT
    assert await store.read(lambda tx: tx.enrolment("agent", "build-1")) is None
    assert await store.read(lambda tx: tx.enrolment_by_certificate(b"c" * 32)) == ENROLMENT
    assert await store.read(lambda tx: tx.enrolment_by_certificate(b"d" * 32)) is None


async def test_an_enrolment_replaces_the_one_of_its_name(store: Store) -> None:
    renewed = replace(ENROLMENT, certificate_sha256=b"d" * 32, entry_index=7)
    other = replace(ENROLMENT, name="build-0", certificate_sha256=b"e" * 32)
    for enrolment in (ENROLMENT, renewed, other):
        await store.write(lambda tx, enrolment=enrolment: tx.add_enrolment(enrolment))  # type: ignore[misc]

    assert await store.read(lambda tx: tx.enrolments()) == (other, renewed)
    assert await store.read(lambda tx: tx.enrolment_by_certificate(b"c" * 32)) is None


async def test_a_revoked_enrolment_stands_no_more_and_stays_known(store: Store) -> None:
    revoked = replace(ENROLMENT, revoked_ms=9)
    await store.write(lambda tx: tx.add_enrolment(revoked))

    assert await store.read(lambda tx: tx.enrolment("client", "build-1")) is None
    assert await store.read(lambda tx: tx.enrolment_by_certificate(b"c" * 32)) == revoked
    assert await store.read(lambda tx: tx.enrolments()) == (revoked,)


async def test_a_certificate_belongs_to_one_enrolment(store: Store) -> None:
    await store.write(lambda tx: tx.add_enrolment(ENROLMENT))

    with pytest.raises(ConflictError) as caught:
        await store.write(lambda tx: tx.add_enrolment(replace(ENROLMENT, name="build-2")))

    assert caught.value.code == "enrolment.certificate"
    assert await store.read(lambda tx: tx.enrolments()) == (ENROLMENT,)


async def test_the_newest_grant_and_profile_are_kept(store: Store) -> None:
    grant = Grant(request_key=b"r" * 32, profile="acme-ev", envelope=b"first", entry_index=1)
    newer = replace(grant, envelope=b"second", entry_index=2)
    software = replace(PROFILE, name="demo", hardware=False, chain=())
    changed = replace(PROFILE, chain=(b"new leaf",))

    async def operation(tx: Tx) -> None:
        await tx.add_grant(grant)
        await tx.add_grant(newer)
        await tx.put_profile(software)
        await tx.put_profile(PROFILE)
        await tx.put_profile(changed)

    await store.write(operation)

    assert await store.read(lambda tx: tx.grant(b"r" * 32, "acme-ev")) == newer
    assert await store.read(lambda tx: tx.grant(b"r" * 32, "demo")) is None
    assert await store.read(lambda tx: tx.profile("acme-ev")) == changed
    assert await store.read(lambda tx: tx.profile("none")) is None
    assert await store.read(lambda tx: tx.profiles()) == (changed, software)


async def test_a_request_is_queued_with_its_jobs(store: Store) -> None:
    await store.write(adding(*JOBS))

    jobs = await store.read(lambda tx: tx.jobs(REQUEST.id))
    assert [replace(job, seq=0) for job in jobs] == list(JOBS)
    assert [job.seq for job in jobs] == sorted({job.seq for job in jobs} - {0})
    assert await store.read(lambda tx: tx.request(REQUEST.id)) == REQUEST
    assert await store.read(lambda tx: tx.request("none")) is None
    assert await store.read(lambda tx: tx.request_by_idempotency_key("build-1", "once")) == REQUEST
    assert await store.read(lambda tx: tx.request_by_idempotency_key("build-2", "once")) is None


@pytest.mark.parametrize("change", [{"idempotency_key": "other"}, {"id": "cd" * 32}])
async def test_a_request_is_made_once(store: Store, change: dict[str, str]) -> None:
    await store.write(adding(*JOBS))

    with pytest.raises(ConflictError) as caught:
        await store.write(lambda tx: tx.add_request(replace(REQUEST, **change), ()))  # type: ignore[arg-type]

    assert caught.value.code == "request.exists"


async def test_jobs_leave_the_queue_in_their_order(store: Store) -> None:
    await store.write(adding(*JOBS))
    first, second, third = await queued(store)

    async def progress(tx: Tx) -> None:
        await tx.put_job(replace(first, state=JobState.INTENT, fence=3, attempts=1, intent_index=8))
        await tx.put_job(replace(second, state=JobState.SIGNED, result_index=9, signature=b"signature"))

    await store.write(progress)

    assert await queued(store) == (third,)
    assert await store.read(lambda tx: tx.next_queued("other", 10, 1 << 20)) == ()
    assert await store.read(lambda tx: tx.next_queued("acme-ev", 0, 1 << 20)) == ()
    assert await store.read(lambda tx: tx.queued_before("acme-ev", third.seq)) == 1
    (opened,) = await store.read(lambda tx: tx.open_jobs())
    assert (opened.seq, opened.fence, opened.attempts, opened.intent_index) == (first.seq, 3, 1, 8)
    assert opened.signed == b"signed 0"
    done = (await store.read(lambda tx: tx.jobs(REQUEST.id)))[1]
    assert (done.state, done.result_index, done.signature) == (JobState.SIGNED, 9, b"signature")


async def test_a_job_is_replaced_whole_and_keeps_its_place(store: Store) -> None:
    await store.write(adding(*JOBS))
    (first, *_) = await queued(store)
    changed = replace(
        first,
        profile="other",
        state=JobState.FAILED,
        signed=b"other",
        detail=b"",
        branch="token",
        code="token.failed",
        message="no",
    )

    await store.write(lambda tx: tx.put_job(replace(changed, seq=0)))

    assert (await store.read(lambda tx: tx.jobs(REQUEST.id)))[0] == changed
    with pytest.raises(ConflictError) as caught:
        await store.write(lambda tx: tx.put_job(replace(first, item=77)))
    assert caught.value.code == "job.unknown"


async def test_a_fence_only_grows(store: Store) -> None:
    held = Lease(profile="acme-ev", holder="hub-1", fence=5)
    await store.write(lambda tx: tx.put_lease(held))
    await store.write(lambda tx: tx.put_lease(held))

    for refused in (replace(held, holder="hub-2"), replace(held, fence=4)):
        with pytest.raises(LogIntegrityError) as caught:
            await store.write(lambda tx, lease=refused: tx.put_lease(lease))  # type: ignore[misc]
        assert caught.value.code == "lease.fence"
    taken = Lease(profile="acme-ev", holder="hub-2", fence=6)
    await store.write(lambda tx: tx.put_lease(taken))
    assert await store.read(lambda tx: tx.lease("acme-ev")) == taken
    assert await store.read(lambda tx: tx.lease("none")) is None


async def test_queues_tell_what_waits_for_each_profile_and_since_when(store: Store) -> None:
    assert await store.read(lambda tx: tx.queues()) == ()
    later = replace(REQUEST, id="cd" * 32, idempotency_key="later", profile="other", created_ms=9)
    elsewhere = replace(JOBS[0], request_id=later.id, profile="other")
    await store.write(adding(*JOBS))
    await store.write(lambda tx: tx.add_request(later, (elsewhere,)))
    acme = Queue(profile="acme-ev", queued=3, under_way=0, oldest_ms=1)
    other = Queue(profile="other", queued=1, under_way=0, oldest_ms=9)
    assert await store.read(lambda tx: tx.queues()) == (acme, other)

    await store.write(lambda tx: tx.put_job(replace(JOBS[0], state=JobState.INTENT, fence=1)))
    await store.write(lambda tx: tx.put_job(replace(JOBS[1], state=JobState.SIGNED, fence=1)))
    await store.write(lambda tx: tx.put_job(replace(elsewhere, state=JobState.INTENT, fence=1)))

    assert await store.read(lambda tx: tx.queues()) == (
        Queue(profile="acme-ev", queued=1, under_way=1, oldest_ms=1),
        Queue(profile="other", queued=0, under_way=1, oldest_ms=None),
    )
