# SPDX-License-Identifier: Apache-2.0
"""What becomes of a job: every step from one state to the next. Pure, so that all courses can be tried out.

Queued, its INTENT written, then signed or failed; or queued again, where the token surely was not used (promise 4: the
same fence will do) or where nobody knows (once, under a new fence). A service stores what stands here in the
transaction that writes the entry of the step.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from privyseal.errors import PrivysealError
from privyseal.ports.queue import Job, JobState, Lease
from privyseal.wire.jobs import ItemDone, ItemRefused, OutcomeReply

__all__ = [
    "Record",
    "Settled",
    "answer_told",
    "cancelled",
    "claimed",
    "has_ended",
    "is_requeued",
    "lease_raised",
    "lease_taken",
    "never_sent",
    "never_told",
    "settle",
]

#: Unknown outcomes after which an item is given up (promise 4: repeated once).
_MAX_UNKNOWN: Final = 2
#: The agent had prepared it and did not use the token: the journal there has its fence as used, so it gets another.
_PREPARED_CODES: Final = frozenset({"job.not_used", "job.token_unable"})
#: Refusals that say "this job came too late", not "this must not be signed": the item returns to the queue.
_REQUEUE_CODES: Final = _PREPARED_CODES | {
    "job.stale_fence",
    "job.never_begun",
    "job.checkpoint_behind",
    "profile.not_served",
}
#: Why a job never left the hub: the token was not used, and the item has ended all the same.
_NEVER_SENT_CODES: Final = frozenset({"witness.none", "witness.quorum"})
_ENDED: Final = frozenset({JobState.SIGNED, JobState.FAILED})


class Record(Enum):
    """The entry that goes with a step."""

    OK = "ok"  #: RESULT with a signature
    FAILED = "failed"  #: RESULT without one
    NOT_USED = "not-used"  #: RESULT: the token was not used
    UNKNOWN = "unknown"  #: UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What becomes of a job that was answered.

    Attributes:
        job: As it is to be stored; where it has ended, its `result_index` is still to be filled in.
        record: The entry that must be durable with it.
        raises_fence: Its next operation needs a higher fence: the last one may yet end with a signature.
    """

    job: Job
    record: Record
    raises_fence: bool = False

    def recorded(self, index: int) -> Job:
        """The job, once its entry stands at `index`."""
        return replace(self.job, result_index=index) if has_ended(self.job) else self.job


def has_ended(job: Job) -> bool:
    """Whether the client may be told what became of it; only then a signature may be released."""
    return job.state in _ENDED


def claimed(job: Job, *, token: str, fence: int, intent_index: int) -> Job:
    """A queued job whose INTENT stands in the log, for the token of that place."""
    return replace(job, state=JobState.INTENT, token=token, fence=fence, intent_index=intent_index)


def cancelled(job: Job) -> Job:
    """A job that its client, or an operator, does not want any more."""
    return replace(
        job,
        state=JobState.FAILED,
        token="",
        fence=0,
        intent_index=None,
        branch="denied",
        code="request.cancelled",
        message="the request was cancelled before the token was used for this item",
    )


def settle(job: Job | None, *, asked: Job, answer: ItemDone | ItemRefused) -> Settled | None:
    """What becomes of the job as it is stored now, given an answer for it as it was when its agent was asked.

    Only the open intent counts: None if the answer is for another one, and changes nothing. Its fence is not enough to
    tell: an item that was queued again has the same (an answer may wait for a database that takes nothing).
    """
    open_intent = (JobState.INTENT, asked.fence, asked.intent_index)
    if job is None or (job.state, job.fence, job.intent_index) != open_intent:
        return None
    if isinstance(answer, ItemDone):
        return Settled(job=replace(job, state=JobState.SIGNED, signature=answer.signature), record=Record.OK)
    if answer.unknown:
        attempts = job.attempts + 1
        if attempts >= _MAX_UNKNOWN:
            return Settled(job=_failed(replace(job, attempts=attempts), answer), record=Record.UNKNOWN)
        return Settled(job=_queued(replace(job, attempts=attempts)), record=Record.UNKNOWN, raises_fence=True)
    if answer.code in _REQUEUE_CODES:
        return Settled(job=_queued(job), record=Record.NOT_USED, raises_fence=answer.code in _PREPARED_CODES)
    record = Record.NOT_USED if answer.code in _NEVER_SENT_CODES else Record.FAILED
    return Settled(job=_failed(job, answer), record=record)


def is_requeued(answer: ItemDone | ItemRefused) -> bool:
    """Whether the agent handed the item back without having used the token for it."""
    return isinstance(answer, ItemRefused) and not answer.unknown and answer.code in _REQUEUE_CODES


def _queued(job: Job) -> Job:
    return replace(job, state=JobState.QUEUED, token="", fence=0, intent_index=None)


def _failed(job: Job, answer: ItemRefused) -> Job:
    return replace(job, state=JobState.FAILED, branch=answer.branch, code=answer.code, message=answer.message)


def never_sent(job: Job, error: PrivysealError) -> ItemRefused:
    """The answer for a job that the hub kept back."""
    return _refused(job, error, unknown=False)


def never_told(job: Job, error: PrivysealError) -> ItemRefused:
    """The answer for a job of which nobody will ever tell whether the token was used."""
    return _refused(job, error, unknown=True)


def _refused(job: Job, error: PrivysealError, *, unknown: bool) -> ItemRefused:
    return ItemRefused(
        request=job.request_id,
        item=job.item,
        fence=job.fence,
        branch=error.branch,
        code=error.code,
        message=error.message,
        unknown=unknown,
    )


def answer_told(reply: OutcomeReply) -> ItemDone | ItemRefused | None:
    """What the agent says of an open intent after a lost link or a restart; None if its token is still at work."""
    if reply.state == "running":
        return None
    if reply.state == "done":
        return ItemDone(request=reply.request, item=reply.item, fence=reply.fence, signature=reply.signature)
    never = reply.state == "never"
    return ItemRefused(
        request=reply.request,
        item=reply.item,
        fence=reply.fence,
        branch=reply.branch or "token",
        code="job.never_begun" if never else reply.code or "token.outcome_unknown",
        message=reply.message or "the agent stopped while the token was at work",
        unknown=reply.state == "unknown",
    )


def lease_taken(lease: Lease | None, wanted: Lease, *, now_ms: int, highest: int, alone: bool = False) -> Lease | None:
    """The lease of a token for who wants it; None while another holder has it.

    A new fence is above those of all tokens: one agent may have several, and its journal knows an operation by request,
    item and fence alone.

    Args:
        lease: As it is stored.
        wanted: Token, holder and end that are wanted; its fence does not count.
        now_ms: The time by the database's clock.
        highest: The highest fence of any token.
        alone: No other process uses this database: another holder is one that has ended.
    """
    if lease is None:
        return replace(wanted, fence=highest + 1)
    if lease.holder == wanted.holder:
        return replace(wanted, fence=lease.fence, expires_ms=max(lease.expires_ms, wanted.expires_ms))
    if alone or lease.expires_ms <= now_ms:
        return replace(wanted, fence=max(highest, lease.fence) + 1)
    return None


def lease_raised(lease: Lease, *, highest: int) -> Lease:
    """The same holder's lease under its next fence; `highest` is that of any token."""
    return replace(lease, fence=max(highest, lease.fence) + 1)
