# SPDX-License-Identifier: Apache-2.0
"""Bodies of the HTTP API `/v1/` (JSON; `bytes` travel as base64) and RFC 9457 problem documents."""

from typing import TypeVar

import msgspec

from privyseal.errors import MalformedInputError, PrivysealError, UnavailableError, branch_named
from privyseal.wire.devices import DeviceView
from privyseal.wire.members import MemberStatus
from privyseal.wire.queue import LastSignatures, QueueDepth, TokenUse

__all__ = [
    "AgentStatus",
    "AnchorView",
    "CertificateWarning",
    "Health",
    "HubStatus",
    "ItemView",
    "Problem",
    "ProfileStatus",
    "ProfileView",
    "RequestView",
    "SignatureItem",
    "SignatureRequest",
    "TimestampRequest",
    "TimestampView",
    "TokenStatus",
    "TsaStatus",
    "WitnessStatus",
    "decode_body",
    "error_from_problem",
    "problem_from_error",
]

T = TypeVar("T")


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Problem(_Body, frozen=True, omit_defaults=True):
    """RFC 9457 problem document; `code` is the stable name, `branch` the class of error.

    Attributes:
        retry_after_seconds: For how long asking again would not help, if the hub knows; as in the field Retry-After.
    """

    title: str
    status: int
    code: str
    branch: str
    detail: str
    hint: str = ""
    retry_after_seconds: float | None = None


class SignatureItem(_Body, frozen=True):
    """The small structure that one signature covers."""

    signed: bytes
    detail: bytes = b""


class SignatureRequest(_Body, frozen=True):
    """POST /v1/signatures: the signed statement and the preimages of its items, in their order.

    Attributes:
        priority: Class in the queue: `release`, `normal` or `nightly`.
        key: SHA-256 of the public key (SPKI, DER) that must sign, in hex; empty if any key of the profile will do.
    """

    envelope: bytes
    preimages: tuple[SignatureItem, ...]
    priority: str = "normal"
    key: str = ""


class ItemView(_Body, frozen=True):
    """What became of one item.

    Attributes:
        state: `signed` or `failed`.
        receipt: `c2sp.org/tlog-proof@v1` of the RESULT entry.
        chain: Which of the request's `chains` belongs to the key that signed.
    """

    state: str
    signature: bytes = b""
    receipt: str = ""
    chain: int = 0
    branch: str = ""
    code: str = ""
    message: str = ""


class RequestView(_Body, frozen=True):
    """A request, and those of its items that were asked for and have ended.

    Attributes:
        id: Name of the request; `/v1/signatures/{id}`.
        state: `waiting` while an item is queued or running, else `done`.
        position: Items that stand before this request's first waiting one.
        eta_seconds: How long until its last one is signed, as far as was measured; None if nobody knows.
        total: Number of its items.
        first: Position of `items[0]`: the `?from=` of the question. Items follow without a gap, each of them ended.
        chains: Certificates of the keys that may have signed, each DER, leaf first.
    """

    id: str
    state: str
    position: int
    total: int
    first: int
    chains: tuple[tuple[bytes, ...], ...]
    items: tuple[ItemView, ...]
    eta_seconds: float | None = None


class TimestampRequest(_Body, frozen=True):
    """POST /v1/timestamps: a TimeStampReq (RFC 3161 §2.4.1), DER."""

    request: bytes


class TimestampView(_Body, frozen=True):
    """The TimeStampResp as the TSA gave it, and the index of the log entry that records it."""

    response: bytes
    index: int


class AnchorView(_Body, frozen=True):
    """POST /v1/anchors: the log's newest checkpoint has a timestamp now.

    Attributes:
        index: Of the `anchor` entry.
        size: Of the checkpoint.
        time_ms: What the TSA states.
        tsa: SHA-256 of its certificate in hex.
    """

    index: int
    size: int
    time_ms: int
    tsa: str


class ProfileView(_Body, frozen=True):
    """GET /v1/profiles/{name}: what a client needs before it builds a preimage."""

    name: str
    level: str
    opaque: tuple[str, ...]
    hardware: bool
    chain: tuple[bytes, ...]
    others: tuple[tuple[bytes, ...], ...]  #: chains of its other tokens: any of them may sign
    online: bool
    bundle: bytes  #: SHA-256 of the trust bundle that is in force
    witness: str = "off"
    test: bool = False  #: its signatures are for trying things out
    longest_seconds: int = 3600  #: how long a request may wait at this hub


class ProfileStatus(_Body, frozen=True):
    """A key profile in `status`; of its tokens (`members`), what is said here is of the one that would be used now.

    Attributes:
        online: Its agent has a link, and serves it.
        code, problem, hint: Why nothing can be signed for it now, as in docs/errors; empty if something can.
        queued: Items that have not ended.
        queue: The same in detail.
    """

    name: str
    level: str
    hardware: bool
    token_label: str
    agent: str
    online: bool
    problem: str
    queued: int
    subject: str
    not_after: str
    code: str = ""
    hint: str = ""
    witness: str = "off"
    test: bool = False
    members: tuple[MemberStatus, ...] = ()
    queue: QueueDepth = QueueDepth()


class TsaStatus(_Body, frozen=True):
    """A time-stamping authority in `status`.

    Attributes:
        state: `ready`, `resting` (its budget is used up, or it asked for patience) or `open` (its circuit breaker).
        problem: Its last failure, in words; empty if the last answer was good.
    """

    url: str
    state: str
    problem: str = ""


class AgentStatus(_Body, frozen=True):
    """An agent in `status`.

    Attributes:
        witness: Verifier key under which it cosigns checkpoints; empty while it has no link.
        here: It dials in from the hub's own host, where it is no witness that counts.
    """

    name: str
    linked: bool
    witness: str = ""
    here: bool = False


class WitnessStatus(_Body, frozen=True):
    """A witness of the trust bundle's policy in `status`.

    Attributes:
        size: Of the newest checkpoint that it has cosigned since the hub was started; 0 if none.
        problem: Why the last one was not cosigned; empty if it was.
    """

    name: str
    size: int
    problem: str = ""


class TokenStatus(_Body, frozen=True):
    """A token in `status`, as its agent last said.

    Attributes:
        linked: Whether its agent has a link; if not, all else is old.
        token: Its name in agent.toml.
        state: `ready`, `absent`, `blocked`, `quarantined`, `frozen`, `drained` or `failed`.
        pin_state: `ok`, `count-low`, `final-try` or `locked`; empty if unknown.
        signatures, failures, restarts, recoveries: Since the agent was started; `restarts` without the first start.
        p50_seconds, p99_seconds: The bound that half, and 99 of 100, of the signatures stayed within; None for none.
        code, problem, hint: Why it is not ready, and the next step; empty if it is.
        lease: Which hub process uses it: `here`, `elsewhere` or `free`.
        users: Whose items are at it, or prepared for it; those that are signed first stand first.
        relocation: By what it may be in another place than the one on record, as in docs/custody.md; empty if nothing
            says so.
    """

    agent: str
    linked: bool
    token: str
    label: str
    serial: str
    model: str
    hardware: bool
    state: str
    pin_state: str
    signatures: int
    failures: int
    restarts: int
    recoveries: dict[str, int]
    p50_seconds: float | None = None
    p99_seconds: float | None = None
    code: str = ""
    problem: str = ""
    hint: str = ""
    lease: str = "free"
    users: tuple[TokenUse, ...] = ()
    relocation: tuple[str, ...] = ()


class CertificateWarning(_Body, frozen=True):
    """The certificate of a key profile, whose key is in `token` (`AGENT/TOKEN`), ends soon, or has ended.

    Attributes:
        not_after: ISO 8601, UTC.
        days: Whole days left; negative once it has ended.
        level: `notice` from 60 days on, `warning` from 30, `urgent` from 7, `expired`.
    """

    profile: str
    token: str
    subject: str
    not_after: str
    days: int
    level: str


class HubStatus(_Body, frozen=True):
    """GET /v1/status; `signatures` are the newest of this hub process, the newest first."""

    hub: str
    version: str
    client: str
    log_size: int
    log_root: str
    profiles: tuple[ProfileStatus, ...]
    agents: tuple[AgentStatus, ...]
    tsas: tuple[TsaStatus, ...] = ()
    witnesses: tuple[WitnessStatus, ...] = ()
    tokens: tuple[TokenStatus, ...] = ()
    certificates: tuple[CertificateWarning, ...] = ()
    signatures: tuple[LastSignatures, ...] = ()
    devices: tuple[DeviceView, ...] = ()


class Health(_Body, frozen=True, omit_defaults=True):
    """GET /livez and /readyz.

    Attributes:
        status: `ok` or `unready`.
        code, reason, next: Why, as in docs/errors, and what to do; empty if it is ok.
    """

    status: str
    code: str = ""
    reason: str = ""
    next: str = ""


def decode_body(data: bytes, kind: type[T]) -> T:
    """Read a JSON body strictly.

    Raises:
        MalformedInputError: `body.malformed`, naming the field.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedInputError("body.malformed", f"the body is not a {kind.__name__}: {error}") from error


def problem_from_error(error: PrivysealError) -> Problem:
    """The problem document for an error."""
    return Problem(
        title=type(error).__name__.removesuffix("Error"),
        status=error.http_status,
        code=error.code,
        branch=error.branch,
        detail=error.message,
        hint=error.hint,
        retry_after_seconds=error.retry_after_seconds if isinstance(error, UnavailableError) else None,
    )


def error_from_problem(problem: Problem) -> PrivysealError:
    """The error that a problem document describes, as the same class."""
    branch = branch_named(problem.branch)
    if issubclass(branch, UnavailableError):
        return branch(problem.code, problem.detail, hint=problem.hint, retry_after_seconds=problem.retry_after_seconds)
    return branch(problem.code, problem.detail, hint=problem.hint)
