# SPDX-License-Identifier: Apache-2.0
"""The contract of the Store port (ports/store.py): enrolments, profiles and queue, run on every adapter."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from privyseal.errors import ConflictError, LogIntegrityError
from privyseal.ports.queue import Job, JobState, Lease, Queue, QueuedRequest, Request, RequestUse, Standing
from privyseal.ports.store import Enrolment, Grant, JoinCode, ProfileRow, Store, Tx

REQUEST = Request(
    id="ab" * 32,
    client="build-1",
    idempotency_key="once",
    profile="acme-ev",
    envelope=b"envelope",
    created_ms=1,
    not_after_ms=2,
    queued_ms=3,
    priority=1,
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
    token="ev",
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
    return await store.read(lambda tx: tx.queued_jobs(REQUEST.id, 10, 1 << 20))


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


async def test_an_enrolment_is_found_by_its_request_key(store: Store) -> None:
    """Whoever joined again under another name with the same key stands under the newest that was not revoked."""
    key = ENROLMENT.request_key
    again = replace(ENROLMENT, name="build-2", certificate_sha256=b"d" * 32, entry_index=ENROLMENT.entry_index + 1)
    for enrolment in (again, ENROLMENT):
        await store.write(lambda tx, enrolment=enrolment: tx.add_enrolment(enrolment))  # type: ignore[misc]

    assert await store.read(lambda tx: tx.enrolment_by_request_key("client", key)) == again
    assert await store.read(lambda tx: tx.enrolment_by_request_key("agent", key)) is None
    assert await store.read(lambda tx: tx.enrolment_by_request_key("client", b"?" * 32)) is None
    await store.write(lambda tx: tx.add_enrolment(replace(again, revoked_ms=9)))
    assert await store.read(lambda tx: tx.enrolment_by_request_key("client", key)) == ENROLMENT
    await store.write(lambda tx: tx.add_enrolment(replace(ENROLMENT, revoked_ms=9)))
    assert await store.read(lambda tx: tx.enrolment_by_request_key("client", key)) == replace(again, revoked_ms=9)


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
    elsewhere = replace(PROFILE, token="hsm")

    async def operation(tx: Tx) -> None:
        await tx.add_grant(grant)
        await tx.add_grant(newer)
        await tx.put_profile(software)
        await tx.put_profile(PROFILE)
        await tx.put_profile(changed)
        await tx.put_profile(elsewhere)

    await store.write(operation)

    assert await store.read(lambda tx: tx.grant(b"r" * 32, "acme-ev")) == newer
    assert await store.read(lambda tx: tx.grant(b"r" * 32, "demo")) is None
    assert await store.read(lambda tx: tx.profiles()) == (changed, elsewhere, software)


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
    assert await store.read(lambda tx: tx.queued_jobs("other", 10, 1 << 20)) == ()
    assert await store.read(lambda tx: tx.queued_jobs(REQUEST.id, 0, 1 << 20)) == ()
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
    held = Lease(token="office/ev", holder="hub-1", fence=5, expires_ms=9)
    await store.write(lambda tx: tx.put_lease(held))
    await store.write(lambda tx: tx.put_lease(held))

    for refused in (replace(held, holder="hub-2"), replace(held, fence=4)):
        with pytest.raises(LogIntegrityError) as caught:
            await store.write(lambda tx, lease=refused: tx.put_lease(lease))  # type: ignore[misc]
        assert caught.value.code == "lease.fence"
    taken = Lease(token="office/ev", holder="hub-2", fence=6, expires_ms=7)
    await store.write(lambda tx: tx.put_lease(taken))
    assert await store.read(lambda tx: tx.lease("office/ev")) == taken
    assert await store.read(lambda tx: tx.leases()) == (taken,)
    assert await store.read(lambda tx: tx.lease("none")) is None


async def test_queues_tell_what_waits_for_each_profile_and_since_when(store: Store) -> None:
    assert await store.read(lambda tx: tx.queues()) == ()
    later = replace(REQUEST, id="cd" * 32, idempotency_key="later", profile="other", queued_ms=9)
    elsewhere = replace(JOBS[0], request_id=later.id, profile="other")
    await store.write(adding(*JOBS))
    await store.write(lambda tx: tx.add_request(later, (elsewhere,)))
    acme = Queue(profile="acme-ev", queued=3, under_way=0, oldest_ms=3)
    other = Queue(profile="other", queued=1, under_way=0, oldest_ms=9)
    assert await store.read(lambda tx: tx.queues()) == (acme, other)

    await store.write(lambda tx: tx.put_job(replace(JOBS[0], state=JobState.INTENT, fence=1)))
    await store.write(lambda tx: tx.put_job(replace(JOBS[1], state=JobState.SIGNED, fence=1)))
    await store.write(lambda tx: tx.put_job(replace(elsewhere, state=JobState.INTENT, fence=1)))

    assert await store.read(lambda tx: tx.queues()) == (
        Queue(profile="acme-ev", queued=1, under_way=1, oldest_ms=3),
        Queue(profile="other", queued=0, under_way=1, oldest_ms=None),
    )


async def test_what_waits_is_told_by_request_in_the_order_in_which_it_came(store: Store) -> None:
    later = replace(REQUEST, id="cd" * 32, idempotency_key="later", priority=2, key="ef" * 32)
    await store.write(adding(*JOBS))
    first = await store.write(lambda tx: tx.add_request(later, (replace(JOBS[0], request_id=later.id),)))

    both = await store.read(lambda tx: tx.queued_requests())
    assert both == (
        QueuedRequest(request=REQUEST, seq=first - 3, items=3),
        QueuedRequest(request=later, seq=first, items=1),
    )
    assert await store.read(lambda tx: tx.queued_requests(first - 1)) == both[1:]
    assert await store.read(lambda tx: tx.queued_requests(first)) == ()
    assert await store.read(lambda tx: tx.queued_request(later.id)) == both[1]
    assert await store.read(lambda tx: tx.queued_request("none")) is None

    await store.write(lambda tx: tx.put_job(replace(JOBS[0], state=JobState.INTENT, token="office/ev", fence=1)))
    assert await store.read(lambda tx: tx.queued_request(REQUEST.id)) == QueuedRequest(
        request=REQUEST, seq=first - 2, items=2
    )
    for job in JOBS:
        await store.write(lambda tx, job=job: tx.put_job(replace(job, state=JobState.FAILED)))  # type: ignore[misc]
    assert await store.read(lambda tx: tx.queued_request(REQUEST.id)) is None
    assert await store.read(lambda tx: tx.queued_requests()) == both[1:]


async def test_a_request_is_moved_and_cancelled(store: Store) -> None:
    await store.write(adding(*JOBS))
    changed = replace(REQUEST, priority=3, cancelled_ms=12)

    await store.write(lambda tx: tx.put_request(replace(changed, envelope=b"never changes")))

    assert await store.read(lambda tx: tx.request(REQUEST.id)) == changed


async def test_as_many_jobs_come_as_fit_but_one_at_least(store: Store) -> None:
    await store.write(adding(*JOBS))
    each_bytes = len(JOBS[0].signed) + len(JOBS[0].detail)

    async def count(limit: int, room_bytes: int) -> int:
        return len(await store.read(lambda tx: tx.queued_jobs(REQUEST.id, limit, room_bytes)))

    assert [await count(limit, 1 << 20) for limit in (0, 1, 2, 9)] == [0, 1, 2, 3]
    assert [await count(9, room) for room in (0, each_bytes, 2 * each_bytes - 1, 2 * each_bytes)] == [1, 1, 1, 2]


async def test_the_database_has_a_clock(store: Store) -> None:
    before, after = [await store.read(lambda tx: tx.database_ms()) for _ in range(2)]
    assert 0 < before <= after


async def test_what_is_under_way_is_told_by_request_and_token(store: Store) -> None:
    await store.write(adding(*JOBS))
    assert await store.read(lambda tx: tx.requests_under_way()) == ()

    async def claim(tx: Tx) -> None:
        for item, token in ((0, "pi/b"), (1, "pi/a"), (2, "pi/b")):
            job = await tx.job(REQUEST.id, item)
            assert job is not None
            await tx.put_job(replace(job, state=JobState.INTENT, token=token, fence=1, intent_index=item))

    await store.write(claim)
    assert await store.read(lambda tx: tx.requests_under_way()) == (
        RequestUse(request=REQUEST, token="pi/a", items=1),
        RequestUse(request=REQUEST, token="pi/b", items=2),
    )


async def test_how_the_jobs_of_a_request_stand_is_counted(store: Store) -> None:
    await store.write(adding(*JOBS))

    async def end(tx: Tx) -> None:
        for item, index in ((0, 8), (1, 5)):
            job = await tx.job(REQUEST.id, item)
            assert job is not None
            await tx.put_job(replace(job, state=JobState.SIGNED, token="pi/a", result_index=index))

    await store.write(end)
    found = await store.read(lambda tx: tx.standings(REQUEST.id))
    assert sorted(found, key=lambda one: one.items) == [
        Standing(state=JobState.QUEUED, token="", items=1, result_index=None),
        Standing(state=JobState.SIGNED, token="pi/a", items=2, result_index=8),
    ]
    assert await store.read(lambda tx: tx.standings("cd" * 32)) == ()


async def test_a_request_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    ids = [f"{start}{'0' * (64 - len(start))}" for start in ("ab12", "ab1f", "ab20", "ac")]

    async def add(tx: Tx) -> None:
        for number, request_id in enumerate(ids):
            request = replace(REQUEST, id=request_id, idempotency_key=str(number))
            await tx.add_request(request, (replace(JOBS[0], request_id=request_id),))
        other = replace(REQUEST, id="ab1" + "9" * 61, client="build-2")
        await tx.add_request(other, (replace(JOBS[0], request_id=other.id),))

    await store.write(add)
    found = {
        prefix: await store.read(lambda tx, prefix=prefix: tx.request_ids(prefix, "build-1", 2))  # type: ignore[misc]
        for prefix in ("ab1", "ab2", "a", "b", ids[3])
    }
    assert found == {"ab1": tuple(ids[:2]), "ab2": (ids[2],), "a": tuple(ids[:2]), "b": (), ids[3]: (ids[3],)}


async def test_a_statement_is_taken_once_while_it_holds(store: Store) -> None:
    later = 1_700_000_000_000 + 60_000

    async def take(sha256: bytes, not_after_ms: int) -> bool:
        return await store.write(lambda tx: tx.take_statement(sha256, not_after_ms))

    assert await take(b"a" * 32, later)
    assert not await take(b"a" * 32, later)
    assert await take(b"b" * 32, 1)
    assert await take(b"c" * 32, later)
    assert await take(b"b" * 32, 1), "one that has expired is refused elsewhere, and not kept"
    assert not await take(b"a" * 32, later)
