# SPDX-License-Identifier: Apache-2.0
"""What the API tells of the queue: all that waits, one request, and one request's progress as server-sent events.

Times are milliseconds since the epoch by the hub's clock. Classes of priority are told by their names: `next`,
`release`, `normal`, `nightly`.
"""

from typing import Final

import msgspec

from privyseal.errors import MalformedInputError

__all__ = [
    "MIN_PREFIX_DIGITS",
    "ItemsView",
    "LastSignatures",
    "QueueDepth",
    "QueueView",
    "QueuedView",
    "RequestProgress",
    "RequestRecord",
    "TokenUse",
    "is_request_prefix",
    "not_an_id",
]

#: So much of a request's id names it, if no other one begins with the same.
MIN_PREFIX_DIGITS: Final = 8
_ID_DIGITS: Final = 64
_HEX: Final = frozenset("0123456789abcdef")


def is_request_prefix(text: str) -> bool:
    """Whether this can be the beginning of a request's id."""
    return MIN_PREFIX_DIGITS <= len(text) <= _ID_DIGITS and set(text) <= _HEX


def not_an_id(text: str) -> MalformedInputError:
    """The refusal of what cannot be the beginning of a request's id."""
    return MalformedInputError(
        "request.id",
        f"{text[:80]!r} is not the beginning of a request's id",
        hint=f"give {MIN_PREFIX_DIGITS} or more of its lower-case hex digits; privyseal queue list shows them",
    )


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    pass


class QueuedView(_Body, frozen=True):
    """A request of which something waits or is under way.

    Attributes:
        id: Name of the request.
        state: `waiting` while an item waits, else `under-way`: all that is left of it is at a token, or prepared.
        priority: The class that it was put into.
        counts_as: The class that it counts for now: the same, or a higher one if it has waited long; empty if nothing
            of it waits.
        waiting: How many of its items wait.
        under_way: How many are at a token or prepared for one.
        tokens: Those tokens, as `AGENT/TOKEN`.
        position: Items that will be signed before its first waiting one, if nothing else comes.
        eta_seconds: How long until its last one is signed, as far as was measured; None if nobody knows.
        queued_ms: When the hub took it.
        not_after_ms: From then on it is not signed any more.
    """

    id: str
    client: str
    profile: str
    state: str
    priority: str
    counts_as: str
    waiting: int
    under_way: int
    tokens: tuple[str, ...]
    position: int
    eta_seconds: float | None
    queued_ms: int
    not_after_ms: int


class QueueView(_Body, frozen=True):
    """GET /v1/queue.

    Attributes:
        requests: By key profile; what is under way first, then what waits, in the order in which it will be served.
        total: How many there are.
        cut: Whether there are more than are shown.
    """

    requests: tuple[QueuedView, ...]
    total: int
    cut: bool


class ItemsView(_Body, frozen=True):
    """Items of a request that stand alike.

    Attributes:
        items: Which ones, such as `0-63,70`.
        state: `queued`, `intent` (the token may be used), `signed` or `failed`.
        token: Whose, as `AGENT/TOKEN`; empty for none.
        code, message: Why they failed, as in docs/errors.
    """

    items: str
    state: str
    token: str = ""
    code: str = ""
    message: str = ""


class RequestProgress(_Body, frozen=True):
    """How far a request is; an event of GET /v1/signatures/{id}/events.

    Attributes:
        id: Name of the request.
        state: `waiting` until every item has ended and may be told, then `done`.
        priority: The class that it was put into.
        position: Items that will be signed before its first waiting one, if nothing else comes.
        eta_seconds: How long until its last one is signed, as far as was measured; None if nobody knows.
        total: Number of its items; the next four add up to it.
        waiting, under_way, signed, failed: How many of them stand so.
    """

    id: str
    state: str
    priority: str
    position: int
    eta_seconds: float | None
    total: int
    waiting: int
    under_way: int
    signed: int
    failed: int


class RequestRecord(_Body, frozen=True):
    """GET /v1/queue/{id}: all that the hub knows of the caller's own request, also of one that is done.

    Attributes:
        progress: How far it is.
        counts_as: The class that it counts for now, as in `QueuedView`.
        format: What is signed.
        key: SHA-256 of the only public key that will do, in hex; empty if any of the profile's will.
        idempotency_key: Under which it was made.
        created_ms: When it was made, by the client's clock.
        queued_ms: When the hub took it.
        not_after_ms: From then on it is not signed any more.
        cancelled_ms: When it was cancelled, or None.
        items: Where its items stand, those that stand alike together.
    """

    progress: RequestProgress
    client: str
    profile: str
    counts_as: str
    format: str
    key: str
    idempotency_key: str
    created_ms: int
    queued_ms: int
    not_after_ms: int
    cancelled_ms: int | None
    items: tuple[ItemsView, ...]


class QueueDepth(_Body, frozen=True):
    """What stands before a key profile's tokens; part of `status`.

    Attributes:
        waiting: Items by the class that they count for now; nothing for a class of which none waits.
        under_way: Items at a token, or prepared for one.
        oldest_ms: Since when the oldest one waits; None if none does.
        eta_seconds: How long all of it will take, as far as was measured; None if nobody knows.
    """

    waiting: dict[str, int] = {}
    under_way: int = 0
    oldest_ms: int | None = None
    eta_seconds: float | None = None


class TokenUse(_Body, frozen=True):
    """Whose items are at a token, or prepared for it; part of `status`.

    Attributes:
        request: Name of the request.
        under_way: Its items at this token.
        left: All of its items that have not ended.
        since_ms: When the first one was sent to the token; None if that was another hub process's doing, or is not
            remembered any more.
    """

    client: str
    profile: str
    priority: str
    request: str
    under_way: int
    left: int
    since_ms: int | None


class LastSignatures(_Body, frozen=True):
    """Items of one request that ended in one way; part of `status`.

    Attributes:
        at_ms: When the last of them did.
        items: How many they are.
        outcome: `signed`, `failed`, `denied` or `cancelled`.
        code: Why, as in docs/errors; empty for `signed`.
    """

    at_ms: int
    client: str
    profile: str
    request: str
    items: int
    outcome: str
    code: str = ""
