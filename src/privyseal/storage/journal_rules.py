# SPDX-License-Identifier: Apache-2.0
"""What the agent's journal answers, given what it has recorded (DESIGN §4, promise 4). Pure; the tables ask here."""

from dataclasses import dataclass

from privyseal.errors import ConflictError, DeniedError, LogIntegrityError
from privyseal.ports.journal import JournalState, Outcome, OutcomeState

__all__ = ["Begun", "End", "Key", "check_begin", "check_fence", "check_finish", "check_held", "outcome_of"]

#: Request id, item, fence.
Key = tuple[str, int, int]
#: Signature, branch, code, message.
End = tuple[bytes, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What is recorded of one item of a request.

    Attributes:
        same: Whether it was begun under this very fence.
        signed_fence: The fence under which it ended with a signature, if it did.
    """

    same: bool
    signed_fence: int | None


def check_held(held: JournalState, size: int, root: bytes) -> bool:
    """Whether a checkpoint is newer than the one held.

    Raises:
        LogIntegrityError: `journal.rewound` if it is older, or another one of the same size.
    """
    if size < held.size or (size == held.size and root != held.root):
        raise LogIntegrityError(
            "journal.rewound",
            f"the hub shows a log of size {size} that does not extend the one of size {held.size}"
            " that this agent holds",
            hint="the hub's database was restored or replaced, or its log was forked",
        )
    return held.checkpoint_note is None or size > held.size


def check_fence(token: str, fence: int, highest: int) -> bool:
    """Whether a fence is the token's new highest.

    Raises:
        DeniedError: `journal.stale_fence` if a higher one was seen.
    """
    if fence < highest:
        raise DeniedError(
            "journal.stale_fence",
            f"fence {fence} of token {token} is stale: this agent has seen {highest}",
        )
    return fence > highest


def check_begin(key: Key, begun: Begun) -> None:
    """Let an item be begun: once under each fence, and never after it was signed.

    Raises:
        ConflictError: `journal.used`, `journal.signed`.
    """
    request_id, item, fence = key
    if begun.same:
        raise ConflictError(
            "journal.used",
            f"item {item} of request {request_id} was begun under fence {fence} before",
            hint="ask for its outcome instead",
        )
    if begun.signed_fence is not None:
        raise ConflictError(
            "journal.signed",
            f"item {item} of request {request_id} was signed under fence {begun.signed_fence}, and is signed once",
            hint=f"ask for its outcome under fence {begun.signed_fence}",
        )


def check_finish(key: Key, *, begun: bool, known: End | None, end: End) -> bool:
    """Whether the end of an operation is news.

    Raises:
        ConflictError: `journal.not_begun`, or `journal.finished` if it is known to have ended otherwise.
    """
    request_id, item, fence = key
    if not begun:
        raise ConflictError(
            "journal.not_begun", f"item {item} of request {request_id} was not begun under fence {fence}"
        )
    if known is not None and known != end:
        raise ConflictError(
            "journal.finished", f"item {item} of request {request_id} ended otherwise under fence {fence}"
        )
    return known is None


def outcome_of(end: End | None) -> Outcome:
    """What is known of an operation that was begun, given its end if that is recorded."""
    if end is None:
        return Outcome(state=OutcomeState.BEGUN)
    signature, branch, code, message = end
    state = OutcomeState.SIGNED if signature else OutcomeState.FAILED
    return Outcome(state=state, signature=signature, branch=branch, code=code, message=message)
