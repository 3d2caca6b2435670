# SPDX-License-Identifier: Apache-2.0
"""What waits for a token, and who may use it: requests, their jobs, leases."""

from dataclasses import dataclass
from enum import Enum

__all__ = ["Job", "JobState", "Lease", "Queue", "QueuedRequest", "Request", "RequestUse", "Standing"]


class JobState(Enum):
    """Where one item of a request stands."""

    QUEUED = "queued"  #: durable, no token use yet
    INTENT = "intent"  #: its INTENT entry is durable; the token may be used
    SIGNED = "signed"  #: RESULT with a signature is durable
    FAILED = "failed"  #: RESULT without one, or the request can no longer be served


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An accepted signing request.

    Attributes:
        id: SHA-256 of the raw request key followed by the request statement's canonical bytes, hex.
        envelope: The client's DSSE envelope, verbatim.
        queued_ms: When the hub took it.
        priority: Its class in the queue (`privyseal.policy.fair_queue.Priority`).
        key: SHA-256 of the public key (SPKI, DER) that must sign, in hex; empty if any key of the profile will do.
        cancelled_ms: When it was cancelled, or None.
    """

    id: str
    client: str
    idempotency_key: str
    profile: str
    envelope: bytes
    created_ms: int
    not_after_ms: int
    queued_ms: int
    priority: int
    key: str = ""
    cancelled_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One item of a request on its way.

    Attributes:
        seq: Place in the queue over all requests; 0 lets the store give the next one.
        token: Whose the INTENT is for, as `AGENT/TOKEN`; empty while queued.
        fence: Fence under which the INTENT was written; 0 while queued.
        attempts: How many of its INTENTs ended with an unknown outcome.
        branch, code, message: Why it failed, as in the error taxonomy; empty otherwise.
    """

    request_id: str
    item: int
    profile: str
    signed: bytes
    detail: bytes
    seq: int = 0
    state: JobState = JobState.QUEUED
    token: str = ""
    fence: int = 0
    attempts: int = 0
    intent_index: int | None = None
    result_index: int | None = None
    signature: bytes = b""
    branch: str = ""
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRequest:
    """A request of which jobs are queued.

    Attributes:
        seq: Place of the first of them.
        items: How many they are.
    """

    request: Request
    seq: int
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who may use a token, under which fence, until when. The fence only ever grows.

    Attributes:
        token: `AGENT/TOKEN`.
        holder: A hub process, by a name that it gave itself.
        expires_ms: By the clock of the database; another holder may take it from then on.
    """

    token: str
    holder: str
    fence: int
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What stands before a key profile's tokens.

    Attributes:
        queued, under_way: Jobs in state QUEUED and INTENT.
        oldest_ms: Since when the first queued job waits; None if none is queued.
    """

    profile: str
    queued: int
    under_way: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestUse:
    """A request of which jobs are in state INTENT for a token.

    Attributes:
        token: `AGENT/TOKEN`.
        items: How many they are.
    """

    request: Request
    token: str
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How many jobs of a request stand alike.

    Attributes:
        token: Whose INTENT they have, or had; empty for none.
        result_index: The highest of their RESULT entries; None if none has one.
    """

    state: JobState
    token: str
    items: int
    result_index: int | None
