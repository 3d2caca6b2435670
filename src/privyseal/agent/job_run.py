# SPDX-License-Identifier: Apache-2.0
"""One job's items on their way through the token: signed in their order, or handed back before their turn.

An item has begun when its turn comes: from then on it is the token's (whatever steps of recovery that takes), and ends
with it. Whatever has not begun can be handed back at any time, also while another item is at the token.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import structlog

from privyseal.agent.at_work import AtWork
from privyseal.agent.check import CheckedItem, CheckedPart
from privyseal.agent.ladder import is_unable
from privyseal.agent.leases import TokenLease
from privyseal.agent.operations import Operation, refusal, unable
from privyseal.agent.served import Served
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
        key: Served,
        parts: tuple[CheckedPart, ...],
        *,
        fence: int,
        lease: TokenLease,
        at_work: AtWork,
        is_served: Callable[[Served], bool],
        failed: Callable[[Served, PrivysealError], None],
        answer: Answer,
    ) -> None:
        """`failed` is called when the token could not begin an item, for a reason of its own."""
        self.lease: Final = lease
        self._key: Final = key
        self._at_work: Final = at_work
        self._is_served: Final = is_served
        self._failed: Final = failed
        self._answer: Final = answer
        self._waiting = deque(
            _Order(operation=(part.request_id, item.item, fence), item=item) for part in parts for item in part.items
        )
        self._operations: Final = tuple(order.operation for order in self._waiting)
        self._open = len(self._operations)
        self._ended: list[ItemDone | ItemRefused] = []
        self._since_s = 0.0
        self._back: deque[tuple[TokenError, list[_Order]]] = deque()
        self._group: asyncio.TaskGroup | None = None
        self._timer: asyncio.TimerHandle | None = None
        at_work.add(self._operations)

    def hand_back(self, why: TokenError, requests: tuple[str, ...] = ()) -> None:
        """What the token has not begun of these requests (of all, if none is named) is not begun any more.

        It is answered, and ended in the journal, by `run`.
        """
        wanted = frozenset(requests)
        back = [order for order in self._waiting if not wanted or order.operation[0] in wanted]
        if not back:
            return
        self._waiting = deque(order for order in self._waiting if wanted and order.operation[0] not in wanted)
        self._back.append((why, back))
        if self._group is not None:
            self._group.create_task(self._give_back())

    async def run(self) -> None:
        """Sign the items, in their turns.

        What ended within a moment goes to the hub together (one commit there); the last answer never waits.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        self._since_s = asyncio.get_running_loop().time()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._watch_lease()
                for _ in range(min(self._key.turns.most, len(self._waiting)) - 1):
                    group.create_task(self._work(group))
                await self._give_back()
                await self._work(group)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._at_work.drop(self._operations)

    def _watch_lease(self) -> None:
        """Hand back what waits when the lease ends; it may have been put off until then."""
        if not self._waiting:
            return
        if (left_s := self.lease.left_s) > 0:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._watch_lease)
        else:
            self.hand_back(self._lease_over())

    async def _work(self, group: asyncio.TaskGroup) -> None:
        """Use the token when it is its turn; what came of it is written down while it signs the next one already."""
        try:
            while self._waiting:
                async with self._key.turn():
                    order = self._next()
                    if order is None:
                        return
                    end = await self._sign(order)
                group.create_task(self._conclude(order, end))
        except BaseException:
            self._waiting.clear()  # begun in the journal they stay open, as after a crash
            raise

    async def _conclude(self, order: _Order, end: bytes | PrivysealError) -> None:
        await self._tell([await self._written_down(order, end)])

    def _next(self) -> _Order | None:
        """Whose turn it is; None if nothing may be begun any more."""
        if self.lease.left_s <= 0:
            self.hand_back(self._lease_over())
        elif not self._is_served(self._key):
            self.hand_back(self._out_of_use())
        return self._waiting.popleft() if self._waiting else None

    async def _sign(self, order: _Order) -> bytes | PrivysealError:
        try:
            return await self._key.carry_out(order.operation[0], order.item)
        except PrivysealError as error:
            if not is_unable(error):
                return error
            self._failed(self._key, error)
            return unable(error)

    def _lease_over(self) -> TokenError:
        return TokenError(
            "job.not_used",
            f"the hub's lease of token {self.lease.token!r} ended before the item's turn came",
            hint="the hub queues it again",
        )

    def _out_of_use(self) -> TokenError:
        """A prepared item may have waited until its key was frozen, or its token drained."""
        return TokenError(
            "job.not_used",
            f"key profile {self._key.profile.name!r} was taken out of use before the item's turn came",
            hint="the hub queues it again; the agent's log says why the token is out of use",
        )

    async def _give_back(self) -> None:
        """End in the journal what was handed back, and answer for it at once."""
        while self._back:
            why, orders = self._back.popleft()
            answers = [refusal(order.operation, why) for order in orders]
            for order in orders:
                await self._at_work.finish(order.operation, error=why)
            for request, items in _by_request(answers):
                _LOG.warning(
                    "handed back",
                    request=request,
                    item=items,
                    profile=self._key.profile.name,
                    code=why.code,
                    reason=why.message,
                )
            await self._tell(answers, at_once=True)

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

    async def _tell(self, answers: Sequence[ItemDone | ItemRefused], *, at_once: bool = False) -> None:
        self._ended += answers
        self._at_work.drop((one.request, one.item, one.fence) for one in answers)
        self._open -= len(answers)
        now_s = asyncio.get_running_loop().time()
        if not (at_once or self._open == 0 or now_s - self._since_s >= _GATHER_SECONDS):
            return
        told, self._ended, self._since_s = tuple(self._ended), [], now_s
        for request, items in _by_request(one for one in told if isinstance(one, ItemDone)):
            _LOG.info("signed", request=request, item=items, profile=self._key.profile.name)
        await self._answer(Answers(items=told))


def _by_request(answers: Iterable[ItemDone | ItemRefused]) -> Iterator[tuple[str, str]]:
    """Requests and their items, as a log names them."""
    for request, ones in groupby(answers, lambda one: one.request):
        yield short_request(request), item_ranges(one.item for one in ones)
