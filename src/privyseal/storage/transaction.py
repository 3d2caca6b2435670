# SPDX-License-Identifier: Apache-2.0
"""`ReadTx` and `Tx` of the Store port, over whichever database carries out their calls.

No statement here relies on an error of the database to find out what is stored: on PostgreSQL an error ends the
transaction up to its savepoint. A driver's error leaves these methods as it comes, and ends the operation.
"""

# ruff: noqa: S608 - the statements are put together from constants alone

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

from privyseal.errors import ConflictError, LogIntegrityError
from privyseal.ports.queue import Job, Lease, Queue, QueuedRequest, Request, RequestUse, Standing
from privyseal.ports.store import Enrolment, Grant, JoinCode, ProfileRow
from privyseal.storage import rows
from privyseal.storage.calls import Insert, Query, Row
from privyseal.storage.head import LogSeal
from privyseal.storage.log_tables import LogTables

__all__ = ["DatabaseTime", "StoreReadTx", "StoreTx"]

T = TypeVar("T")
#: Asks for the time by the database's clock, in milliseconds.
DatabaseTime = Callable[[], Awaitable[int]]

_NO_LIMIT: Final = 2**63 - 1


def _insert(table: str, columns: str) -> str:
    marks = ", ".join("?" for _ in columns.split(", "))
    return f"INSERT INTO {table} ({columns}) VALUES ({marks})"


def _upsert(table: str, columns: str, key: str) -> str:
    rest = [column for column in columns.split(", ") if column not in key.split(", ")]
    new = ", ".join(f"{column} = excluded.{column}" for column in rest)
    return f"{_insert(table, columns)} ON CONFLICT ({key}) DO UPDATE SET {new}"


_WAITING: Final = "state IN ('queued', 'intent')"  # word for word the condition of the index job_waiting
_JOBS: Final = f"SELECT {rows.JOB_COLUMNS}, signed, detail FROM job JOIN job_preimage USING (seq)"

_ENROLMENT: Final = f"SELECT {rows.ENROLMENT_COLUMNS} FROM enrolment WHERE role = ? AND name = ? AND revoked_ms IS NULL"
_ENROLMENT_BY_CERTIFICATE: Final = f"SELECT {rows.ENROLMENT_COLUMNS} FROM enrolment WHERE certificate_sha256 = ?"
_ENROLMENT_BY_REQUEST_KEY: Final = (
    f"SELECT {rows.ENROLMENT_COLUMNS} FROM enrolment WHERE role = ? AND request_key = ?"
    " ORDER BY CASE WHEN revoked_ms IS NULL THEN 0 ELSE 1 END, entry_index DESC LIMIT 1"
)
_ENROLMENTS: Final = f"SELECT {rows.ENROLMENT_COLUMNS} FROM enrolment ORDER BY role, name"
_GRANT: Final = f"SELECT {rows.GRANT_COLUMNS} FROM key_grant WHERE request_key = ? AND profile = ?"
_GRANTS: Final = f"SELECT {rows.GRANT_COLUMNS} FROM key_grant ORDER BY profile, request_key"
_PROFILES: Final = f"SELECT {rows.PROFILE_COLUMNS} FROM key_profile ORDER BY name, agent, token"
_REQUEST: Final = f"SELECT {rows.REQUEST_COLUMNS} FROM request WHERE id = ?"
_REQUEST_BY_KEY: Final = f"SELECT {rows.REQUEST_COLUMNS} FROM request WHERE client = ? AND idempotency_key = ?"
_REQUEST_IDS: Final = "SELECT id FROM request WHERE id >= ? AND id < ? AND client = ? ORDER BY id LIMIT ?"
_JOBS_OF_REQUEST: Final = f"{_JOBS} WHERE request_id = ? AND item >= ? ORDER BY item LIMIT ?"
_JOB: Final = f"{_JOBS} WHERE request_id = ? AND item = ?"
_STANDS: Final = "SELECT state, token, count(*), max(result_index) FROM job WHERE request_id = ? GROUP BY 1, 2"
_FIRST_WAITING: Final = f"SELECT min(seq) FROM job WHERE request_id = ? AND {_WAITING}"
_QUEUED: Final = f"{_WAITING} AND state = 'queued'"
_REQUESTS: Final = ", ".join(f"request.{column}" for column in rows.REQUEST_COLUMNS.split(", "))
_QUEUED_REQUESTS: Final = (
    f"SELECT {_REQUESTS}, first, items FROM (SELECT request_id, min(seq) AS first, count(*) AS items"
    f" FROM job WHERE {_QUEUED} AND seq > ? GROUP BY request_id) AS waiting"
    " JOIN request ON request.id = request_id ORDER BY first"
)
_QUEUED_REQUEST: Final = (
    f"SELECT {_REQUESTS}, first, items FROM (SELECT min(seq) AS first, count(*) AS items"
    f" FROM job WHERE request_id = ?1 AND {_QUEUED}) AS waiting JOIN request ON request.id = ?1 WHERE items > 0"
)
_QUEUED_LENGTHS: Final = (
    "SELECT seq, length(signed) + length(detail) FROM job JOIN job_preimage USING (seq)"
    f" WHERE request_id = ? AND {_QUEUED} ORDER BY seq LIMIT ?"
)
_QUEUED_JOBS: Final = f"{_JOBS} WHERE request_id = ? AND {_QUEUED} AND seq <= ? ORDER BY seq"
_QUEUES: Final = (
    "SELECT job.profile, count(*), sum(CASE WHEN state = 'queued' THEN 1 ELSE 0 END),"
    " min(CASE WHEN state = 'queued' THEN queued_ms END)"
    f" FROM job JOIN request ON request.id = request_id WHERE {_WAITING} GROUP BY job.profile ORDER BY job.profile"
)
_UNDER_WAY: Final = (
    f"SELECT {_REQUESTS}, token, items FROM (SELECT request_id, token, min(seq) AS first, count(*) AS items FROM job"
    f" WHERE {_WAITING} AND state = 'intent' GROUP BY request_id, token) AS used"
    " JOIN request ON request.id = request_id ORDER BY token, first"
)
_OPEN_JOBS: Final = f"{_JOBS} WHERE {_WAITING} AND state = 'intent' ORDER BY seq"
_AGENT_SEQ: Final = "SELECT seq FROM agent_event WHERE request_key = ?"
_LEASE: Final = f"SELECT {rows.LEASE_COLUMNS} FROM lease WHERE token = ?"
_LEASES: Final = f"SELECT {rows.LEASE_COLUMNS} FROM lease ORDER BY token"

_ADD_JOIN_CODE: Final = f"{_insert('join_code', rows.JOIN_CODE_COLUMNS)} ON CONFLICT DO NOTHING RETURNING 1"
_TAKE_JOIN_CODE: Final = (
    f"UPDATE join_code SET taken = 1 WHERE secret_sha256 = ? AND taken = 0 RETURNING {rows.JOIN_CODE_COLUMNS}"
)
_FORGET_STATEMENTS: Final = "DELETE FROM authority_statement WHERE not_after_ms < ?"
_TAKE_STATEMENT: Final = f"{_insert('authority_statement', 'sha256, not_after_ms')} ON CONFLICT DO NOTHING RETURNING 1"
_OTHER_OF_CERTIFICATE: Final = "SELECT 1 FROM enrolment WHERE certificate_sha256 = ? AND (role <> ? OR name <> ?)"
_ADD_ENROLMENT: Final = _upsert("enrolment", rows.ENROLMENT_COLUMNS, "role, name")
_ADD_GRANT: Final = _upsert("key_grant", rows.GRANT_COLUMNS, "request_key, profile")
_PUT_PROFILE: Final = _upsert("key_profile", rows.PROFILE_COLUMNS, "name, agent, token")
_PUT_AGENT_SEQ: Final = _upsert("agent_event", "request_key, seq", "request_key")
_PUT_COSIGNED: Final = _upsert("log_cosigned", "size, note", "size")
_ADD_REQUEST: Final = f"{_insert('request', rows.REQUEST_COLUMNS)} ON CONFLICT DO NOTHING RETURNING 1"
_PUT_REQUEST: Final = "UPDATE request SET priority = ?, cancelled_ms = ? WHERE id = ?"
_LAST_SEQ: Final = "SELECT coalesce(max(seq), 0) FROM job"
_JOB_COLUMNS: Final = tuple(rows.JOB_COLUMNS.split(", "))
_PREIMAGE_COLUMNS: Final = ("seq", "signed", "detail")
_PUT_JOB: Final = (
    "UPDATE job SET profile = ?, state = ?, token = ?, fence = ?, attempts = ?, intent_index = ?, result_index = ?,"
    " signature = ?, branch = ?, code = ?, message = ? WHERE request_id = ? AND item = ? RETURNING seq"
)
_PUT_PREIMAGE: Final = (
    "UPDATE job_preimage SET signed = ?1, detail = ?2 WHERE seq = ?3 AND (signed <> ?1 OR detail <> ?2)"
)
_PUT_LEASE: Final = _upsert("lease", rows.LEASE_COLUMNS, "token")


class StoreReadTx:
    """Reads of what the transaction sees."""

    def __init__(self, log: LogTables, database_ms: DatabaseTime) -> None:
        self._log: Final = log
        self._database_ms: Final = database_ms

    async def _one(self, sql: str, values: Row, make: Callable[[Row], T]) -> T | None:
        found = await Query(sql, values)
        return make(found[0]) if found else None

    async def _all(self, sql: str, values: Row, make: Callable[[Row], T]) -> tuple[T, ...]:
        return tuple([make(row) for row in await Query(sql, values)])

    async def enrolment(self, role: str, name: str) -> Enrolment | None:
        """The enrolment of that name, unless it is revoked."""
        return await self._one(_ENROLMENT, (role, name), rows.enrolment_from)

    async def enrolment_by_certificate(self, certificate_sha256: bytes) -> Enrolment | None:
        """The enrolment whose TLS certificate this is, revoked ones included."""
        return await self._one(_ENROLMENT_BY_CERTIFICATE, (certificate_sha256,), rows.enrolment_from)

    async def enrolment_by_request_key(self, role: str, request_key: bytes) -> Enrolment | None:
        """The enrolment of that role with this request key: the newest that stands, else the newest that is revoked."""
        return await self._one(_ENROLMENT_BY_REQUEST_KEY, (role, request_key), rows.enrolment_from)

    async def enrolments(self) -> tuple[Enrolment, ...]:
        """All enrolments, revoked ones included, by role and name."""
        return await self._all(_ENROLMENTS, (), rows.enrolment_from)

    async def grant(self, request_key: bytes, profile: str) -> Grant | None:
        """The newest grant for this request key and profile."""
        return await self._one(_GRANT, (request_key, profile), rows.grant_from)

    async def grants(self) -> tuple[Grant, ...]:
        """All grants."""
        return await self._all(_GRANTS, (), rows.grant_from)

    async def profiles(self) -> tuple[ProfileRow, ...]:
        """All key profiles, by name, agent and token."""
        return await self._all(_PROFILES, (), rows.profile_from)

    async def request(self, request_id: str) -> Request | None:
        """The request with that id."""
        return await self._one(_REQUEST, (request_id,), rows.request_from)

    async def request_by_idempotency_key(self, client: str, idempotency_key: str) -> Request | None:
        """The request that this client made under that key."""
        return await self._one(_REQUEST_BY_KEY, (client, idempotency_key), rows.request_from)

    async def request_ids(self, prefix: str, client: str, limit: int) -> tuple[str, ...]:
        """Ids of a client's requests that begin with these lower-case hex digits; no id has a `g`."""
        return tuple([str(row[0]) for row in await Query(_REQUEST_IDS, (prefix, f"{prefix}g", client, limit))])

    async def jobs(self, request_id: str, start: int = 0, count: int = -1) -> tuple[Job, ...]:
        """The items of a request in their order: `count` at most (all if negative) from item `start` on."""
        return await self._all(_JOBS_OF_REQUEST, (request_id, start, _NO_LIMIT if count < 0 else count), rows.job_from)

    async def job(self, request_id: str, item: int) -> Job | None:
        """One item of a request."""
        return await self._one(_JOB, (request_id, item), rows.job_from)

    async def standings(self, request_id: str) -> tuple[Standing, ...]:
        """How many of a request's jobs stand how, by state and token."""
        return await self._all(_STANDS, (request_id,), rows.standing_from)

    async def first_waiting(self, request_id: str) -> int | None:
        """`seq` of the request's first job that is queued or under way; None if all have ended."""
        return await self._one(_FIRST_WAITING, (request_id,), lambda row: row[0])

    async def queued_requests(self, after_seq: int = 0) -> tuple[QueuedRequest, ...]:
        """Requests with queued jobs behind `after_seq`, by the place of their first one."""
        return await self._all(_QUEUED_REQUESTS, (after_seq,), rows.queued_from)

    async def queued_request(self, request_id: str) -> QueuedRequest | None:
        """The same of one request; None if none of its jobs is queued."""
        return await self._one(_QUEUED_REQUEST, (request_id,), rows.queued_from)

    async def queued_jobs(self, request_id: str, limit: int, max_preimage_bytes: int) -> tuple[Job, ...]:
        """The first queued jobs of a request: as many as both limits allow, but one at least."""
        # The lengths first: rows that would not fit any more are not read for nothing, up to 1 MiB each.
        last, room = 0, max_preimage_bytes
        for seq, length_bytes in await Query(_QUEUED_LENGTHS, (request_id, max(limit, 0))):
            room -= length_bytes
            if last and room < 0:
                break
            last = seq
        return await self._all(_QUEUED_JOBS, (request_id, last), rows.job_from) if last else ()

    async def queues(self) -> tuple[Queue, ...]:
        """What is queued or under way, by key profile."""
        return await self._all(_QUEUES, (), rows.queue_from)

    async def requests_under_way(self) -> tuple[RequestUse, ...]:
        """Requests with jobs in state INTENT: one for each token."""
        return await self._all(_UNDER_WAY, (), rows.use_from)

    async def open_jobs(self) -> tuple[Job, ...]:
        """Jobs in state INTENT, oldest first."""
        return await self._all(_OPEN_JOBS, (), rows.job_from)

    async def lease(self, token: str) -> Lease | None:
        """The lease of a token, given as `AGENT/TOKEN`."""
        return await self._one(_LEASE, (token,), rows.lease_from)

    async def leases(self) -> tuple[Lease, ...]:
        """All leases, by token."""
        return await self._all(_LEASES, (), rows.lease_from)

    async def database_ms(self) -> int:
        """The time by the one clock that all processes of the database share."""
        return await self._database_ms()

    async def agent_seq(self, agent_key: bytes) -> int:
        """The number of the last event of that agent that stands in the log; 0 if none does."""
        return await self._one(_AGENT_SEQ, (agent_key,), lambda row: int(row[0])) or 0

    async def entries(self, start: int, count: int) -> tuple[bytes, ...]:
        """Log entries [start, start+count), fewer at the end of the log."""
        return await self._log.entries(start, count)

    async def tile(self, level: int, index: int, width: int) -> bytes:
        """`width` (1..256) hashes of a C2SP tlog tile, 32 bytes each.

        Raises:
            LogIntegrityError: `log.missing_hash`.
            MalformedInputError: `tile.malformed` for coordinates that no tile has.
        """
        return await self._log.tile(level, index, width)

    async def covering_checkpoint(self, index: int) -> str:
        """The oldest stored checkpoint whose tree holds entry `index`.

        Raises:
            LogIntegrityError: `log.missing_checkpoint` if there is none.
        """
        return await self._log.covering_checkpoint(index)

    async def checkpoints(self, start: int, count: int) -> tuple[str, ...]:
        """Stored signed checkpoints in the order of their size, `count` at most from the `start`-th on."""
        return await self._log.checkpoints(start, count)

    async def cosigned(self, index: int, count: int) -> tuple[str, ...]:
        """Stored checkpoints with witnesses' cosignatures whose trees hold entry `index`: the `count` oldest."""
        return await self._log.cosigned(index, count)


class StoreTx(StoreReadTx):
    """One operation's writes."""

    def __init__(self, log: LogTables, seal: LogSeal, database_ms: DatabaseTime) -> None:
        super().__init__(log, database_ms)
        self._seal: Final = seal
        self._told: dict[str, None] = {}

    def take_told(self) -> tuple[str, ...]:
        """The requests that others must hear of since this was last called."""
        told = tuple(self._told)
        self._told.clear()
        return told

    async def now_ms(self) -> int:
        """The time for entries of this transaction, never before that of an earlier commit."""
        return self._seal.now_ms()

    async def append(self, entry: bytes) -> int:
        """Append an entry to the log and answer with its index.

        Raises:
            MalformedInputError: `entry.too_large`.
        """
        return self._log.append(entry)

    async def log_size(self) -> int:
        """Tree size as this transaction sees it."""
        return self._log.size

    async def add_join_code(self, code: JoinCode) -> None:
        """Remember a join code.

        Raises:
            ConflictError: `join.code_reused` if a code with that hash was ever remembered, taken or not.
        """
        if not await Query(_ADD_JOIN_CODE, rows.join_code_row(code)):
            raise ConflictError("join.code_reused", "a join code with this secret was made before")

    async def take_join_code(self, secret_sha256: bytes) -> JoinCode | None:
        """Mark the code with that hash as taken and answer with it; None from the second time on."""
        return await self._one(_TAKE_JOIN_CODE, (secret_sha256,), rows.join_code_from)

    async def take_statement(self, sha256: bytes, not_after_ms: int) -> bool:
        """Remember until that time that an authority statement is carried out; False if it was before."""
        await Query(_FORGET_STATEMENTS, (await self.now_ms(),))
        return bool(await Query(_TAKE_STATEMENT, (sha256, not_after_ms)))

    async def add_enrolment(self, enrolment: Enrolment) -> None:
        """Remember an enrolment; replaces one of the same role and name.

        Raises:
            ConflictError: `enrolment.certificate` if another enrolment has the same TLS certificate.
        """
        place = (enrolment.certificate_sha256, enrolment.role, enrolment.name)
        if await Query(_OTHER_OF_CERTIFICATE, place):
            raise ConflictError(
                "enrolment.certificate",
                f"{enrolment.role} {enrolment.name} brings the TLS certificate of another enrolment",
            )
        await Query(_ADD_ENROLMENT, rows.enrolment_row(enrolment))

    async def add_grant(self, grant: Grant) -> None:
        """Remember a grant; replaces one for the same request key and profile."""
        await Query(_ADD_GRANT, rows.grant_row(grant))

    async def put_profile(self, profile: ProfileRow) -> None:
        """Remember a key profile as announced; replaces one of the same name, agent and token."""
        await Query(_PUT_PROFILE, rows.profile_row(profile))

    async def put_agent_seq(self, agent_key: bytes, seq: int) -> None:
        """Remember the number of the last event of an agent, by its request key."""
        await Query(_PUT_AGENT_SEQ, (agent_key, seq))

    async def put_cosigned(self, size: int, note: str) -> None:
        """Remember a checkpoint with witnesses' cosignatures; replaces one of the same size."""
        await Query(_PUT_COSIGNED, (size, note))

    async def add_request(self, request: Request, jobs: tuple[Job, ...]) -> int:
        """Remember a request and its jobs, giving each job its `seq`; that of the first.

        Raises:
            ConflictError: `request.exists` if the id, or the client's idempotency key, was used before.
        """
        if not await Query(_ADD_REQUEST, rows.request_row(request)):
            raise ConflictError("request.exists", f"{request.client} made this request, or one under its key, before")
        ((last_seq,),) = await Query(_LAST_SEQ)
        placed = [replace(job, seq=seq) for seq, job in enumerate(jobs, last_seq + 1)]
        preimages = [(job.seq, job.signed, job.detail) for job in placed]
        await Insert(table="job", columns=_JOB_COLUMNS, rows=[rows.job_row(job) for job in placed])
        await Insert(table="job_preimage", columns=_PREIMAGE_COLUMNS, rows=preimages)
        return int(last_seq) + 1

    async def put_request(self, request: Request) -> None:
        """Change a request's priority, and when it was cancelled."""
        await Query(_PUT_REQUEST, (request.priority, request.cancelled_ms, request.id))

    async def tell(self, request_id: str) -> None:
        """Other processes of this database hear of a change to this request, once it is committed."""
        self._told[request_id] = None

    async def put_job(self, job: Job) -> None:
        """Replace the job of the same request and item; it keeps its place in the queue.

        Raises:
            ConflictError: `job.unknown` if there is none.
        """
        _, request_id, item, *state = rows.job_row(job)
        found = await Query(_PUT_JOB, (*state, request_id, item))
        if not found:
            raise ConflictError("job.unknown", f"request {job.request_id} has no item {job.item}")
        await Query(_PUT_PREIMAGE, (job.signed, job.detail, found[0][0]))

    async def put_lease(self, lease: Lease) -> None:
        """Replace the token's lease.

        Raises:
            LogIntegrityError: `lease.fence` if the fence would not grow or stay with its holder.
        """
        old = await self.lease(lease.token)
        if old is not None and (lease.fence < old.fence or (lease.fence == old.fence and lease.holder != old.holder)):
            raise LogIntegrityError(
                "lease.fence",
                f"{lease.holder} may not take token {lease.token} under fence {lease.fence}:"
                f" {old.holder} holds it under {old.fence}",
            )
        await Query(_PUT_LEASE, rows.lease_row(lease))
