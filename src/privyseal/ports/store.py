# SPDX-License-Identifier: Apache-2.0
"""The Store port: queue, enrolments and log of one hub, in one database.

A service hands an operation to `Store.write`; the operation is an `async` function over a `Tx`. Every adapter runs
what has gathered (at most 256 operations, no timer) in one transaction, each operation inside its own savepoint. An
operation must therefore do nothing but call the `Tx` it was given: no other awaiting, no effects, and it may be run
again if the commit could not be tried. An error of the database ends an operation; it is not there to be caught.

SQLite serves one process. On PostgreSQL any number of processes write to one database and log: transactions that
write exclude each other from their first statement to their end, so that what one has read holds until it commits.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from privyseal.formats.usb import LEASE
from privyseal.ports.queue import Job, Lease, Queue, QueuedRequest, Request, RequestUse, Standing

__all__ = [
    "Enrolment",
    "Grant",
    "JoinCode",
    "LogHead",
    "ProfileRow",
    "ReadTx",
    "Store",
    "Tx",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinCode:
    """A one-time join code; only the hash of its secret is stored."""

    secret_sha256: bytes
    role: str  #: `client` or `agent`
    name: str
    profiles: tuple[str, ...]  #: key profiles that the client will be allowed; `*` for all
    expires_ms: int
    statement_sha256: bytes  #: of the authority statement that invited


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A client or agent that has joined.

    Attributes:
        certificate_sha256: SHA-256 of its TLS certificate (DER).
        request_key: Its long-lived Ed25519 public key, 32 bytes.
        salt: Random bytes that hide `name` in the log.
        entry_index: Where its `enrol` entry stands in the log.
        revoked_ms: When it was revoked, or None.
    """

    role: str
    name: str
    certificate_sha256: bytes
    request_key: bytes
    profiles: tuple[str, ...]
    salt: bytes
    entry_index: int
    revoked_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A grant signed by authority keys: this request key may use this key profile."""

    request_key: bytes
    profile: str
    envelope: bytes  #: the DSSE envelope, verbatim
    entry_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """A key profile as an agent last announced it for one of its tokens.

    Attributes:
        token: The token's name at the agent.
        chain: DER certificates, leaf first; none for a USB device.
        level: `traced` or `pinned`.
        opaque: Names of formats that may be signed without a bound preimage; `*` for all.
        hardware: Whether the token is hardware.
        witness: `off`, `async`, `before-release` or `before-use`.
        test: Whether its signatures are for trying things out only.
    """

    name: str
    agent: str
    token: str
    chain: tuple[bytes, ...]
    level: str
    opaque: tuple[str, ...]
    token_label: str
    token_serial: str
    hardware: bool
    entry_index: int
    witness: str = "off"
    test: bool = False

    @property
    def is_device(self) -> bool:
        """Whether it is a USB device that is lent, and no key."""
        return not self.chain and self.opaque == (LEASE.name,)

    @property
    def place(self) -> str:
        """`AGENT/TOKEN`, under which the token is leased."""
        return f"{self.agent}/{self.token}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """The newest committed checkpoint.

    Attributes:
        size: Tree size.
        root: 32 bytes.
        note: The checkpoint as a signed note, as it may be shown to others.
    """

    size: int
    root: bytes
    note: str


class ReadTx(Protocol):
    """Reads of one consistent, committed state (inside a Tx: with its own writes)."""

    async def enrolment(self, role: str, name: str) -> Enrolment | None:
        """The enrolment of that name, unless it is revoked."""
        ...

    async def enrolment_by_certificate(self, certificate_sha256: bytes) -> Enrolment | None:
        """The enrolment whose TLS certificate this is, revoked ones included."""
        ...

    async def enrolment_by_request_key(self, role: str, request_key: bytes) -> Enrolment | None:
        """The enrolment of that role with this request key: the newest that stands, else the newest that is revoked."""
        ...

    async def enrolments(self) -> tuple[Enrolment, ...]:
        """All enrolments, by role and name."""
        ...

    async def grant(self, request_key: bytes, profile: str) -> Grant | None:
        """The newest grant for this request key and profile."""
        ...

    async def grants(self) -> tuple[Grant, ...]:
        """All grants."""
        ...

    async def profiles(self) -> tuple[ProfileRow, ...]:
        """All key profiles, by name, agent and token: one for each token that serves it."""
        ...

    async def request(self, request_id: str) -> Request | None:
        """The request with that id."""
        ...

    async def request_by_idempotency_key(self, client: str, idempotency_key: str) -> Request | None:
        """The request that this client made under that key."""
        ...

    async def request_ids(self, prefix: str, client: str, limit: int) -> tuple[str, ...]:
        """Ids of a client's requests that begin with these lower-case hex digits, `limit` at most."""
        ...

    async def jobs(self, request_id: str, start: int = 0, count: int = -1) -> tuple[Job, ...]:
        """The items of a request in their order: `count` at most (all if negative) from item `start` on."""
        ...

    async def job(self, request_id: str, item: int) -> Job | None:
        """One item of a request."""
        ...

    async def standings(self, request_id: str) -> tuple[Standing, ...]:
        """How many of a request's jobs stand how, by state and token."""
        ...

    async def first_waiting(self, request_id: str) -> int | None:
        """`seq` of the request's first job that is queued or under way; None if all have ended."""
        ...

    async def queued_requests(self, after_seq: int = 0) -> tuple[QueuedRequest, ...]:
        """Requests with queued jobs, by the place of their first one; only of jobs behind `after_seq`."""
        ...

    async def queued_request(self, request_id: str) -> QueuedRequest | None:
        """The same of one request; None if none of its jobs is queued."""
        ...

    async def queued_jobs(self, request_id: str, limit: int, max_preimage_bytes: int) -> tuple[Job, ...]:
        """The first queued jobs of a request: as many as both limits allow, but one at least.

        Args:
            request_id: The request.
            limit: Most jobs.
            max_preimage_bytes: Most bytes of `signed` and `detail` together.
        """
        ...

    async def queues(self) -> tuple[Queue, ...]:
        """What is queued or under way, by key profile; nothing for a profile of which nothing is."""
        ...

    async def requests_under_way(self) -> tuple[RequestUse, ...]:
        """Requests with jobs in state INTENT, by token and the first of these jobs: one for each token."""
        ...

    async def open_jobs(self) -> tuple[Job, ...]:
        """Jobs in state INTENT, oldest first: after a start each must be resolved."""
        ...

    async def lease(self, token: str) -> Lease | None:
        """The lease of a token, given as `AGENT/TOKEN`."""
        ...

    async def leases(self) -> tuple[Lease, ...]:
        """All leases, by token."""
        ...

    async def database_ms(self) -> int:
        """The time by the one clock that all processes of the database share; leases go by it."""
        ...

    async def agent_seq(self, agent_key: bytes) -> int:
        """The number of the last event of that agent that stands in the log; 0 if none does."""
        ...

    async def entries(self, start: int, count: int) -> tuple[bytes, ...]:
        """Committed log entries [start, start+count), fewer at the end of the log."""
        ...

    async def tile(self, level: int, index: int, width: int) -> bytes:
        """`width` (1..256) hashes of a C2SP tlog tile, 32 bytes each.

        Raises:
            LogIntegrityError: `log.missing_hash` if the store does not hold all of them.
        """
        ...

    async def covering_checkpoint(self, index: int) -> str:
        """The oldest stored checkpoint whose tree holds entry `index`.

        Raises:
            LogIntegrityError: `log.missing_checkpoint` if there is none.
        """
        ...

    async def checkpoints(self, start: int, count: int) -> tuple[str, ...]:
        """Stored signed checkpoints in the order of their size, `count` at most from the `start`-th on."""
        ...

    async def cosigned(self, index: int, count: int) -> tuple[str, ...]:
        """Stored checkpoints with witnesses' cosignatures whose trees hold entry `index`: the `count` oldest."""
        ...


class Tx(ReadTx, Protocol):
    """One read-write transaction."""

    async def append(self, entry: bytes) -> int:
        """Append an entry (canonical bytes, at most 65,535) to the log and answer with its index.

        Indexes are handed out in the order of the calls; if the operation fails its entries are withdrawn with it.
        """
        ...

    async def now_ms(self) -> int:
        """The time for entries of this transaction: the clock, but never before that of an earlier commit."""
        ...

    async def log_size(self) -> int:
        """Tree size as this transaction sees it, its own entries included."""
        ...

    async def add_join_code(self, code: JoinCode) -> None:
        """Remember a join code.

        Raises:
            ConflictError: `join.code_reused` if a code with that hash was ever remembered, taken or not.
        """
        ...

    async def take_join_code(self, secret_sha256: bytes) -> JoinCode | None:
        """Mark the code with that hash as taken and answer with it; None from the second time on."""
        ...

    async def take_statement(self, sha256: bytes, not_after_ms: int) -> bool:
        """Remember until that time that an authority statement is carried out; False if it was before."""
        ...

    async def add_enrolment(self, enrolment: Enrolment) -> None:
        """Remember an enrolment; replaces one of the same role and name."""
        ...

    async def add_grant(self, grant: Grant) -> None:
        """Remember a grant; replaces one for the same request key and profile."""
        ...

    async def put_profile(self, profile: ProfileRow) -> None:
        """Remember a key profile as announced; replaces one of the same name, agent and token, and keeps all others."""
        ...

    async def add_request(self, request: Request, jobs: tuple[Job, ...]) -> int:
        """Remember a request and its jobs, giving each job its `seq`; that of the first."""
        ...

    async def put_request(self, request: Request) -> None:
        """Change a request's priority, and when it was cancelled."""
        ...

    async def tell(self, request_id: str) -> None:
        """Other processes of this database hear of a change to this request, once it is committed."""
        ...

    async def put_job(self, job: Job) -> None:
        """Replace the job of the same request and item."""
        ...

    async def put_agent_seq(self, agent_key: bytes, seq: int) -> None:
        """Remember the number of the last event of an agent, by its request key."""
        ...

    async def put_cosigned(self, size: int, note: str) -> None:
        """Remember a checkpoint with witnesses' cosignatures; replaces one of the same size."""
        ...

    async def put_lease(self, lease: Lease) -> None:
        """Replace the token's lease.

        Raises:
            LogIntegrityError: `lease.fence` if the fence would not grow or stay with its holder.
        """
        ...


class Store(Protocol):
    """One hub's database."""

    async def write(self, operation: Callable[[Tx], Awaitable[T]]) -> T:
        """Run an operation in a transaction and answer with its value once the commit is durable.

        If entries were appended, a checkpoint over them was signed in the same transaction, the head was moved by
        compare-and-swap, and `head.checkpoint` was replaced durably, all before this returns. Calls are serialised.

        Raises:
            PrivysealError: whatever the operation raised; its writes are undone, those of others are not.
            UnavailableError: `store.unavailable` if nothing was committed and nothing was lost (disk full, I/O error
                before the commit).
            LogIntegrityError: `store.commit_unknown` if it cannot be found out whether the commit is durable;
                `log.head_moved` if another process wrote to a database that serves one, `log.rollback` if the
                database was replaced by another one meanwhile. From then on every write fails the same way: the
                process must be started again.
        """
        ...

    async def read(self, operation: Callable[[ReadTx], Awaitable[T]]) -> T:
        """Run reads on the newest committed state, of whichever process; `head` is no older than that afterwards."""
        ...

    def listen(self, heard: Callable[[tuple[str, ...]], None]) -> None:
        """Call back with the ids of requests that other processes changed; with none if any may have changed.

        Called on the event loop. It may come late or not at all while the database cannot be reached, and says so with
        an empty call once it can be again: nothing may depend on it alone.
        """
        ...

    @property
    def head(self) -> LogHead:
        """The newest checkpoint whose commit is known to this process, and which is in `head.checkpoint`."""
        ...

    async def close(self) -> None:
        """Wait for what was handed in, then close the database."""
        ...
