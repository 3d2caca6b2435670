# SPDX-License-Identifier: Apache-2.0
"""One job's items on their way through the token: signed in their order, answered in handfuls."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import structlog

from privyseal.agent.at_work import AtWork
from privyseal.agent.check import CheckedItem, CheckedPart
from privyseal.agent.operations import Operation, refusal
from privyseal.agent.served import ServedKey
from privyseal.errors import PrivysealError, TokenError
from privyseal.wire.job_names import item_ranges, short_request
from privyseal.wire.jobs import Answers, ItemDone, ItemRefused
from privyseal.wire.link import AgentMessage

__all__ = ["Answer", "JobRun"]

_LOG: Final = structlog.get_logger("privyseal.agent")
#: An answer waits this long for those behind it; the last of a job never waits.
_GATHER_SECONDS: Final = 0.1
#: Sends a message to the hub, or drops it if the link is down: the hub asks again when it is back.
Answer = Callable[[AgentMessage], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    operation: Operation
    item: CheckedItem


class JobRun:
    """The items of a job that stand in the journal, until each is answered."""

    def __init__(
        self,
        key: ServedKey,
        parts: tuple[CheckedPart, ...],
        *,
        fence: int,
        at_work: AtWork,
        is_served: Callable[[ServedKey], bool],
        answer: Answer,
    ) -> None:
        self._key: Final = key
        self._at_work: Final = at_work
        self._is_served: Final = is_served
        self._answer: Final = answer
        self._waiting = deque(
            _Order(operation=(part.request_id, item.item, fence), item=item) for part in parts for item in part.items
        )
        self._operations: Final = tuple(order.operation for order in self._waiting)
        self._open = len(self._operations)
        self._ended: list[ItemDone | ItemRefused] = []
        self._since_s = 0.0
        at_work.add(self._operations)

    async def run(self) -> None:
        """Sign the items, one after the other by each of the token's workers.

        What ended within a moment goes to the hub together (one commit there); the last answer never waits.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        self._since_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._key.workers, self._open) - 1):
                    group.create_task(self._work())
                await self._work()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        finally:
            self._at_work.drop(self._operations)

    async def _work(self) -> None:
        """Use the token when it is its turn; what came of it is written down while it signs the next one already."""
        while self._waiting:
            async with self._key.turn:
                if not self._waiting:
                    return
                order = self._waiting.popleft()
                end = await self._sign(order)
            await self._tell(await self._written_down(order, end))

    async def _sign(self, order: _Order) -> bytes | PrivysealError:
        key, item = self._key, order.item
        try:
            self._check_still_served()
            return await key.token.sign(key_id=key.key_id, mechanism=item.mechanism, digest=item.digest)
        except PrivysealError as error:
            return error

    def _check_still_served(self) -> None:
        """A prepared item may have waited until its key was frozen, or its token drained.

        Raises:
            TokenError: `job.not_used`.
        """
        if not self._is_served(self._key):
            raise TokenError(
                "job.not_used",
                f"key profile {self._key.profile.name!r} was taken out of use before the item's turn came",
                hint="the hub queues it again; the agent's log says why the token is out of use",
            )

    async def _written_down(self, order: _Order, end: bytes | PrivysealError) -> ItemDone | ItemRefused:
        """How an item ended, in the journal and for the hub."""
        request_id, item, fence = order.operation
        if isinstance(end, bytes):
            await self._at_work.finish(order.operation, signature=end)
            return ItemDone(request=request_id, item=item, fence=fence, signature=end)
        refused = refusal(order.operation, end)
        _LOG.warning(
            "not signed",
            request=short_request(request_id),
            item=str(item),
            profile=self._key.profile.name,
            code=end.code,
            reason=end.message,
        )
        if not refused.unknown:  # an operation whose outcome nobody knows stays open in the journal
            await self._at_work.finish(order.operation, error=end)
        return refused

    async def _tell(self, answer: ItemDone | ItemRefused) -> None:
        self._ended.append(answer)
        self._at_work.drop([(answer.request, answer.item, answer.fence)])
        self._open -= 1
        now_s = asyncio.get_running_loop().time()
        if self._open == 0 or now_s - self._since_s >= _GATHER_SECONDS:
            await self._flush(now_s)

    async def _flush(self, now_s: float) -> None:
        told, self._ended, self._since_s = tuple(self._ended), [], now_s
        for request, items in _by_request(one for one in told if isinstance(one, ItemDone)):
            _LOG.info("signed", request=request, item=items, profile=self._key.profile.name)
        await self._answer(Answers(items=told))


def _by_request(answers: Iterator[ItemDone]) -> Iterator[tuple[str, str]]:
    """Requests and their items, as a log names them."""
    for request, ones in groupby(answers, lambda one: one.request):
        yield short_request(request), item_ranges(one.item for one in ones)
