# SPDX-License-Identifier: Apache-2.0
"""What the agent says of token operations. Pure: what runs, and what the journal holds, are arguments."""

from collections.abc import Iterable, Mapping
from typing import Final

from privyseal.agent.ladder import is_unknown
from privyseal.errors import ConflictError, LogIntegrityError, PrivysealError, TokenError
from privyseal.ports.journal import Outcome, OutcomeState
from privyseal.wire.jobs import ItemRefused, OutcomeReply

__all__ = ["Item", "Operation", "check_at_rest", "journal_is_lost", "outcome_reply", "refusal", "unable"]

#: Request id, item.
Item = tuple[str, int]
#: Request id, item, fence.
Operation = tuple[str, int, int]

#: Journal refusals that mean "the hub's job came too late": the hub queues the item again.
_STALE: Final = "job.stale_fence"
_STALE_CODES: Final = frozenset({"journal.stale_fence"})
_OUTCOME_STATES: Final = {
    OutcomeState.BEGUN: "unknown",
    OutcomeState.SIGNED: "done",
    OutcomeState.FAILED: "failed",
}


def journal_is_lost(error: BaseException) -> bool:
    """Whether the journal answers nothing any more until it is opened again: then nobody knows what to tell the hub."""
    return isinstance(error, LogIntegrityError) and error.code == "journal.commit_unknown"


def check_at_rest(running: Mapping[Item, int], request_id: str, items: Iterable[int], fence: int) -> None:
    """None of these items is at work under another fence: it may yet end with a signature, and then that is the one.

    Args:
        running: What is at work, and under which fence.
        request_id: Whose items they are.
        items: That a job asks for.
        fence: Of the job.

    Raises:
        ConflictError: `job.running`.
    """
    for item in items:
        at = running.get((request_id, item), fence)
        if at != fence:
            raise ConflictError(
                "job.running",
                f"item {item} of request {request_id} is at work under fence {at}",
                hint="ask for its outcome instead",
            )


def refusal(operation: Operation, error: PrivysealError) -> ItemRefused:
    """What the hub is told of an item that was refused, or that the token did not sign."""
    request_id, item, fence = operation
    return ItemRefused(
        request=request_id,
        item=item,
        fence=fence,
        branch=error.branch,
        code=_STALE if error.code in _STALE_CODES else error.code,
        message=error.message,
        unknown=is_unknown(error),
    )


def unable(error: PrivysealError) -> TokenError:
    """Why a token began nothing of what waits for it, for a reason of its own (`is_unable`), which stands in it."""
    return TokenError(
        "job.token_unable",
        f"the token could not begin it: {error}",
        hint="the hub queues it again; the agent's log says what the token needs",
    )


def outcome_reply(operation: Operation, *, running: bool, outcome: Outcome | None) -> OutcomeReply:
    """What became of an operation; `outcome` is None if the journal does not know it."""
    request_id, item, fence = operation
    if running:
        return OutcomeReply(request=request_id, item=item, fence=fence, state="running")
    if outcome is None:
        return OutcomeReply(request=request_id, item=item, fence=fence, state="never")
    return OutcomeReply(
        request=request_id,
        item=item,
        fence=fence,
        state=_OUTCOME_STATES[outcome.state],
        signature=outcome.signature,
        branch=outcome.branch,
        code=outcome.code,
        message=outcome.message,
    )
