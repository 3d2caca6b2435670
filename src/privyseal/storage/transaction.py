# SPDX-License-Identifier: Apache-2.0
"""`ReadTx` and `Tx` of the Store port over one SQLite connection.

The methods are `async` because the port is; none of them ever suspends, which is what lets the writer thread
drive an operation to its end in one step. `sqlite3.Error` leaves them as it comes: whoever owns the
transaction knows whether it ends one operation or all of them.
"""

# ruff: noqa: S608 - the statements are put together from constants alone

import sqlite3
from collections.abc import Callable
from typing import Any, Final, TypeVar

from privyseal.errors import ConflictError, LogIntegrityError
from privyseal.ports.store import Enrolment, Grant, Job, JoinCode, Lease, ProfileRow, Request
from privyseal.storage import rows
from privyseal.storage.head import LogSeal
from privyseal.storage.log_tables import LogTables

__all__ = ["SqliteReadTx", "SqliteTx"]

T = TypeVar("T")

_WAITING: Final = "state IN ('queued', 'intent')"  # word for word the condition of the index job_waiting
_JOBS: Final = f"SELECT {rows.JOB_COLUMNS}, signed, detail FROM job JOIN job_preimage USING (seq)"

_ENROLMENT: Final = f"SELECT {rows.ENROLMENT_COLUMNS} FROM enrolment WHERE role = ? AND name = ? AND revoked_ms IS NULL"
_ENROLMENT_BY_CERTIFICATE: Final = f"SELECT {rows.ENROLMENT_COLUMNS} FROM enrolment WHERE certificate_sha256 = ?"
_ENROLMENTS: Final = f"SELECT {rows.ENROLMENT_COLUMNS} FROM enrolment ORDER BY role, name"
_GRANT: Final = f"SELECT {rows.GRANT_COLUMNS} FROM key_grant WHERE request_key = ? AND profile = ?"
_PROFILE: Final = f"SELECT {rows.PROFILE_COLUMNS} FROM key_profile WHERE name = ?"
_PROFILES: Final = f"SELECT {rows.PROFILE_COLUMNS} FROM key_profile ORDER BY name"
_REQUEST: Final = f"SELECT {rows.REQUEST_COLUMNS} FROM request WHERE id = ?"
_REQUEST_BY_KEY: Final = f"SELECT {rows.REQUEST_COLUMNS} FROM request WHERE client = ? AND idempotency_key = ?"
_JOBS_OF_REQUEST: Final = f"{_JOBS} WHERE request_id = ? AND item >= ? ORDER BY item LIMIT ?"
_JOB: Final = f"{_JOBS} WHERE request_id = ? AND item = ?"
_FIRST_WAITING: Final = f"SELECT min(seq) FROM job WHERE request_id = ? AND {_WAITING}"
_NEXT_QUEUED: Final = f"{_JOBS} WHERE profile = ? AND {_WAITING} AND state = 'queued' ORDER BY seq LIMIT ?"
_QUEUED_BEFORE: Final = f"SELECT count(*) FROM job WHERE profile = ? AND {_WAITING} AND seq < ?"
_OPEN_JOBS: Final = f"{_JOBS} WHERE {_WAITING} AND state = 'intent' ORDER BY seq"
_LEASE: Final = f"SELECT {rows.LEASE_COLUMNS} FROM lease WHERE profile = ?"

_ADD_JOIN_CODE: Final = f"INSERT INTO join_code ({rows.JOIN_CODE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
_TAKE_JOIN_CODE: Final = (
    f"UPDATE join_code SET taken = 1 WHERE secret_sha256 = ? AND taken = 0 RETURNING {rows.JOIN_CODE_COLUMNS}"
)
# Not INSERT OR REPLACE: that would silently remove the enrolment of another name with the same certificate.
_ADD_ENROLMENT: Final = (
    f"INSERT INTO enrolment ({rows.ENROLMENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (role, name) DO UPDATE SET certificate_sha256 = excluded.certificate_sha256,"
    " request_key = excluded.request_key, profiles = excluded.profiles, salt = excluded.salt,"
    " entry_index = excluded.entry_index, revoked_ms = excluded.revoked_ms"
)
_ADD_GRANT: Final = f"INSERT OR REPLACE INTO key_grant ({rows.GRANT_COLUMNS}) VALUES (?, ?, ?, ?)"
_PUT_PROFILE: Final = (
    f"INSERT OR REPLACE INTO key_profile ({rows.PROFILE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_REQUEST: Final = f"INSERT INTO request ({rows.REQUEST_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_ADD_JOB: Final = f"INSERT INTO job ({rows.JOB_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADD_PREIMAGE: Final = "INSERT INTO job_preimage (seq, signed, detail) VALUES (?, ?, ?)"
_PUT_JOB: Final = (
    "UPDATE job SET profile = ?, state = ?, fence = ?, attempts = ?, intent_index = ?, result_index = ?,"
    " signature = ?, branch = ?, code = ?, message = ? WHERE request_id = ? AND item = ? RETURNING seq"
)
_PUT_PREIMAGE: Final = (
    "UPDATE job_preimage SET signed = ?1, detail = ?2 WHERE seq = ?3 AND (signed <> ?1 OR detail <> ?2)"
)
_PUT_LEASE: Final = f"INSERT OR REPLACE INTO lease ({rows.LEASE_COLUMNS}) VALUES (?, ?, ?)"


class SqliteReadTx:
    """Reads of what the connection sees now."""

    def __init__(self, connection: sqlite3.Connection, log: LogTables) -> None:
        self._connection: Final = connection
        self._log: Final = log

    def _one(self, sql: str, values: tuple[Any, ...], make: Callable[[rows.Row], T]) -> T | None:
        row = self._connection.execute(sql, values).fetchone()
        return None if row is None else make(row)

    def _all(self, sql: str, values: tuple[Any, ...], make: Callable[[rows.Row], T]) -> tuple[T, ...]:
        return tuple(make(row) for row in self._connection.execute(sql, values))

    async def enrolment(self, role: str, name: str) -> Enrolment | None:
        """The enrolment of that name, unless it is revoked."""
        return self._one(_ENROLMENT, (role, name), rows.enrolment_from)

    async def enrolment_by_certificate(self, certificate_sha256: bytes) -> Enrolment | None:
        """The enrolment whose TLS certificate this is, revoked ones included."""
        return self._one(_ENROLMENT_BY_CERTIFICATE, (certificate_sha256,), rows.enrolment_from)

    async def enrolments(self) -> tuple[Enrolment, ...]:
        """All enrolments, revoked ones included, by role and name."""
        return self._all(_ENROLMENTS, (), rows.enrolment_from)

    async def grant(self, request_key: bytes, profile: str) -> Grant | None:
        """The newest grant for this request key and profile."""
        return self._one(_GRANT, (request_key, profile), rows.grant_from)

    async def profile(self, name: str) -> ProfileRow | None:
        """The key profile of that name."""
        return self._one(_PROFILE, (name,), rows.profile_from)

    async def profiles(self) -> tuple[ProfileRow, ...]:
        """All key profiles, by name."""
        return self._all(_PROFILES, (), rows.profile_from)

    async def request(self, request_id: str) -> Request | None:
        """The request with that id."""
        return self._one(_REQUEST, (request_id,), rows.request_from)

    async def request_by_idempotency_key(self, client: str, idempotency_key: str) -> Request | None:
        """The request that this client made under that key."""
        return self._one(_REQUEST_BY_KEY, (client, idempotency_key), rows.request_from)

    async def jobs(self, request_id: str, start: int = 0, count: int = -1) -> tuple[Job, ...]:
        """The items of a request in their order: `count` at most (all if negative) from item `start` on."""
        return self._all(_JOBS_OF_REQUEST, (request_id, start, count), rows.job_from)

    async def job(self, request_id: str, item: int) -> Job | None:
        """One item of a request."""
        return self._one(_JOB, (request_id, item), rows.job_from)

    async def first_waiting(self, request_id: str) -> int | None:
        """`seq` of the request's first job that is queued or under way; None if all have ended."""
        return self._one(_FIRST_WAITING, (request_id,), lambda row: row[0])

    async def next_queued(self, profile: str, limit: int, max_preimage_bytes: int) -> tuple[Job, ...]:
        """The oldest queued jobs of a profile (FIFO by `seq`): as many as both limits allow, but one at least."""
        found: list[Job] = []
        room = max_preimage_bytes
        for row in self._connection.execute(_NEXT_QUEUED, (profile, max(limit, 0))):
            job = rows.job_from(row)
            room -= len(job.signed) + len(job.detail)
            if found and room < 0:
                break
            found.append(job)
        return tuple(found)

    async def queued_before(self, profile: str, seq: int) -> int:
        """How many jobs of the profile are queued or under way before `seq`."""
        return self._one(_QUEUED_BEFORE, (profile, seq), lambda row: int(row[0])) or 0

    async def open_jobs(self) -> tuple[Job, ...]:
        """Jobs in state INTENT, oldest first."""
        return self._all(_OPEN_JOBS, (), rows.job_from)

    async def lease(self, profile: str) -> Lease | None:
        """The profile's lease."""
        return self._one(_LEASE, (profile,), rows.lease_from)

    async def entries(self, start: int, count: int) -> tuple[bytes, ...]:
        """Log entries [start, start+count), fewer at the end of the log."""
        return self._log.entries(start, count)

    async def tile(self, level: int, index: int, width: int) -> bytes:
        """`width` (1..256) hashes of a C2SP tlog tile, 32 bytes each.

        Raises:
            LogIntegrityError: `log.missing_hash`.
            MalformedInputError: `tile.malformed` for coordinates that no tile has.
        """
        return self._log.tile(level, index, width)

    async def covering_checkpoint(self, index: int) -> str:
        """The oldest stored checkpoint whose tree holds entry `index`.

        Raises:
            LogIntegrityError: `log.missing_checkpoint` if there is none.
        """
        return self._log.covering_checkpoint(index)

    async def checkpoints(self, start: int, count: int) -> tuple[str, ...]:
        """Stored signed checkpoints in the order of their size, `count` at most from the `start`-th on."""
        return self._log.checkpoints(start, count)

    async def cosigned(self, index: int, count: int) -> tuple[str, ...]:
        """Stored checkpoints with witnesses' cosignatures whose trees hold entry `index`: the `count` oldest."""
        return self._log.cosigned(index, count)


class SqliteTx(SqliteReadTx):
    """One operation's writes."""

    def __init__(self, connection: sqlite3.Connection, log: LogTables, seal: LogSeal) -> None:
        super().__init__(connection, log)
        self._seal: Final = seal

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
        return self._log.frontier.size

    async def add_join_code(self, code: JoinCode) -> None:
        """Remember a join code.

        Raises:
            ConflictError: `join.code_reused` if a code with that hash was ever remembered, taken or not.
        """
        try:
            self._connection.execute(_ADD_JOIN_CODE, rows.join_code_row(code))
        except sqlite3.IntegrityError as error:
            raise ConflictError("join.code_reused", "a join code with this secret was made before") from error

    async def take_join_code(self, secret_sha256: bytes) -> JoinCode | None:
        """Mark the code with that hash as taken and answer with it; None from the second time on."""
        return self._one(_TAKE_JOIN_CODE, (secret_sha256,), rows.join_code_from)

    async def add_enrolment(self, enrolment: Enrolment) -> None:
        """Remember an enrolment; replaces one of the same role and name.

        Raises:
            ConflictError: `enrolment.certificate` if another enrolment has the same TLS certificate.
        """
        try:
            self._connection.execute(_ADD_ENROLMENT, rows.enrolment_row(enrolment))
        except sqlite3.IntegrityError as error:
            raise ConflictError(
                "enrolment.certificate",
                f"{enrolment.role} {enrolment.name} brings the TLS certificate of another enrolment",
            ) from error

    async def add_grant(self, grant: Grant) -> None:
        """Remember a grant; replaces one for the same request key and profile."""
        self._connection.execute(_ADD_GRANT, rows.grant_row(grant))

    async def put_profile(self, profile: ProfileRow) -> None:
        """Remember a key profile as announced; replaces one of the same name."""
        self._connection.execute(_PUT_PROFILE, rows.profile_row(profile))

    async def put_cosigned(self, size: int, note: str) -> None:
        """Remember a checkpoint with witnesses' cosignatures; replaces one of the same size."""
        self._log.put_cosigned(size, note)

    async def add_request(self, request: Request, jobs: tuple[Job, ...]) -> None:
        """Remember a request and its jobs, giving each job its `seq`.

        Raises:
            ConflictError: `request.exists` if the id, or the client's idempotency key, was used before.
        """
        try:
            self._connection.execute(_ADD_REQUEST, rows.request_row(request))
        except sqlite3.IntegrityError as error:
            raise ConflictError(
                "request.exists", f"{request.client} made this request, or one under its key, before"
            ) from error
        for job in jobs:
            seq = self._connection.execute(_ADD_JOB, rows.job_row(job)).lastrowid
            self._connection.execute(_ADD_PREIMAGE, (seq, job.signed, job.detail))

    async def put_job(self, job: Job) -> None:
        """Replace the job of the same request and item; it keeps its place in the queue.

        Raises:
            ConflictError: `job.unknown` if there is none.
        """
        _, request_id, item, *state = rows.job_row(job)
        row = self._connection.execute(_PUT_JOB, (*state, request_id, item)).fetchone()
        if row is None:
            raise ConflictError("job.unknown", f"request {job.request_id} has no item {job.item}")
        self._connection.execute(_PUT_PREIMAGE, (job.signed, job.detail, row[0]))

    async def put_lease(self, lease: Lease) -> None:
        """Replace the profile's lease.

        Raises:
            LogIntegrityError: `lease.fence` if the fence would not grow or stay with its holder.
        """
        old = await self.lease(lease.profile)
        if old is not None and (lease.fence < old.fence or (lease.fence == old.fence and lease.holder != old.holder)):
            raise LogIntegrityError(
                "lease.fence",
                f"{lease.holder} may not take {lease.profile} under fence {lease.fence}:"
                f" {old.holder} holds it under {old.fence}",
            )
        self._connection.execute(_PUT_LEASE, (lease.profile, lease.holder, lease.fence))
