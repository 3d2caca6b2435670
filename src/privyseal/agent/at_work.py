# SPDX-License-Identifier: Apache-2.0
"""The token operations that this process has begun in the journal and not ended, and what is said of any operation."""

from collections.abc import Iterable
from typing import Final

import structlog

from privyseal.agent.operations import Item, Operation, check_at_rest, outcome_reply
from privyseal.errors import DeniedError, PrivysealError, UnavailableError
from privyseal.ports.journal import AgentJournal
from privyseal.wire.job_names import short_request
from privyseal.wire.jobs import OutcomeQuery, OutcomeReply

__all__ = ["AtWork"]

_LOG: Final = structlog.get_logger("privyseal.agent")
#: What was told longer ago is on no link any more.
_MOST_NEVER: Final = 100_000


class AtWork:
    """What waits for a token, or is at one."""

    def __init__(self, journal: AgentJournal) -> None:
        self._journal: Final = journal
        self._fences: dict[Item, int] = {}
        self._told_never: dict[Operation, object] = {}

    def check(self, request_id: str, items: Iterable[int], fence: int, sender: object) -> None:
        """None of these items is at work under another fence, nor was another hub than the sender told `never`.

        That one has gone on from there: the sender's job was on its way meanwhile, over a link of its own.

        Raises:
            ConflictError: `job.running`. DeniedError: `job.stale_fence`.
        """
        asked = tuple(items)
        check_at_rest(self._fences, request_id, asked, fence)
        for item in asked:
            if self._told_never.get((request_id, item, fence), sender) is not sender:
                raise DeniedError(
                    "job.stale_fence",
                    f"another hub was told that item {item} of request {request_id} never began under fence {fence}",
                    hint="the hub queues it again",
                )

    def add(self, operations: Iterable[Operation]) -> None:
        """These are at work from now on; the journal has them."""
        self._fences.update(((request_id, item), fence) for request_id, item, fence in operations)

    def drop(self, operations: Iterable[Operation]) -> None:
        """These are at work no more, however they ended."""
        for request_id, item, fence in operations:
            if self._fences.get((request_id, item)) == fence:
                del self._fences[request_id, item]

    async def finish(
        self, operation: Operation, *, signature: bytes = b"", error: PrivysealError | None = None
    ) -> None:
        """Write down how an item ended. On a full disk it stays open here, and the hub is told all the same.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        request_id, item, fence = operation
        branch, code, message = (error.branch, error.code, error.message) if error is not None else ("", "", "")
        try:
            await self._journal.finish(
                request_id, item, fence, signature=signature, branch=branch, code=code, message=message
            )
        except UnavailableError as failure:
            _LOG.error(
                "end not written down", request=short_request(request_id), item=str(item), reason=failure.message
            )

    async def outcome(self, query: OutcomeQuery, asker: object) -> OutcomeReply:
        """What became of a (request, item, fence). Whoever asks may go on from `never`, and nobody else begins it then.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        operation = (query.request, query.item, query.fence)
        running = self._fences.get(operation[:2]) == query.fence
        outcome = None if running else await self._journal.outcome(*operation)
        if not running and outcome is None:
            self._told_never[operation] = asker
            while len(self._told_never) > _MOST_NEVER:
                del self._told_never[next(iter(self._told_never))]
        return outcome_reply(operation, running=running, outcome=outcome)
