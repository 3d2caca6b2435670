# SPDX-License-Identifier: Apache-2.0
"""The hub's end of an agent link, without its socket: who waits for which answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from privyseal.errors import UnavailableError
from privyseal.hub.jobs import answer_told
from privyseal.ports.store import Enrolment
from privyseal.wire.jobs import ItemDone, ItemRefused, OutcomeQuery, OutcomeReply
from privyseal.wire.link import AddCheckpoint, CheckpointAnswer, HubMessage, UnlockAnswer, UnlockOrder, UnlockQuery

__all__ = ["AgentLink", "ItemKey"]

#: (request id, item, fence): at most one token operation for each (promise 4).
ItemKey = tuple[str, int, int]


class AgentLink:
    """A live link to one agent.

    Attributes:
        held_size: Size of the newest checkpoint that the agent holds, as far as the hub knows; the next job's
            consistency proof starts there.
        witness: Verifier key under which the agent cosigns checkpoints.
        here: The agent dials in from the hub's own host.
    """

    def __init__(
        self,
        agent: Enrolment,
        send: Callable[[HubMessage], Awaitable[None]],
        *,
        held_size: int,
        hang_up: Callable[[], Awaitable[object]],
        witness: str = "",
        here: bool = True,
    ) -> None:
        """`send` raises ConnectionError if the connection is gone; `hang_up` ends it, so that the agent hears of it."""
        self.agent = agent
        self.hang_up = hang_up
        self.held_size = held_size
        self.witness = witness
        self.here = here
        #: A job's proof starts where the job before it ended, so jobs are built and sent one at a time.
        self.sending = asyncio.Lock()
        self._send = send
        self._items: dict[ItemKey, asyncio.Future[ItemDone | ItemRefused]] = {}
        self._outcomes: dict[ItemKey, asyncio.Future[OutcomeReply]] = {}
        self._unlocks: dict[int, asyncio.Future[UnlockAnswer]] = {}
        self._checkpoint: asyncio.Future[CheckpointAnswer] | None = None
        self._closed = False

    async def send(self, message: HubMessage) -> None:
        """Send a message.

        Raises:
            UnavailableError: `agent.link_lost`.
        """
        if self._closed:
            raise self._lost()
        try:
            await self._send(message)
        except ConnectionError as error:  # it broke just now, and nobody has read that from it yet
            raise self._lost() from error

    def expect(self, key: ItemKey) -> asyncio.Future[ItemDone | ItemRefused]:
        """What will be told of an item; the same future for whoever asks."""
        if self._closed:
            raise self._lost()
        return self._items.setdefault(key, asyncio.get_running_loop().create_future())

    async def outcome(self, key: ItemKey) -> OutcomeReply:
        """Ask the agent what became of an item.

        Raises:
            UnavailableError: `agent.link_lost`.
        """
        waiting = self._outcomes.setdefault(key, asyncio.get_running_loop().create_future())
        await self.send(OutcomeQuery(request=key[0], item=key[1], fence=key[2]))
        return await waiting

    async def outcome_of(self, key: ItemKey) -> ItemDone | ItemRefused:
        """What became of an item; waits while the token is still at work on it.

        Raises:
            UnavailableError: `agent.link_lost`.
        """
        answer = self.expect(key)
        return answer_told(await self.outcome(key)) or await answer

    async def add_checkpoint(self, body: str) -> CheckpointAnswer:
        """Put a checkpoint before the agent as a witness; whoever calls holds `sending` until it has answered.

        Raises:
            UnavailableError: `agent.link_lost`.
        """
        waiting: asyncio.Future[CheckpointAnswer] = asyncio.get_running_loop().create_future()
        self._checkpoint = waiting
        await self.send(AddCheckpoint(body=body))
        return await waiting

    async def unlock(self, message: UnlockQuery | UnlockOrder) -> UnlockAnswer:
        """Pass on what concerns a PIN; what the agent answers.

        Raises:
            UnavailableError: `agent.link_lost`.
        """
        waiting: asyncio.Future[UnlockAnswer] = asyncio.get_running_loop().create_future()
        self._unlocks[message.ask] = waiting
        try:
            await self.send(message)
            return await waiting
        finally:
            self._unlocks.pop(message.ask, None)

    def told_unlock(self, message: UnlockAnswer) -> None:
        """The agent answered."""
        waiting = self._unlocks.get(message.ask)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def told_checkpoint(self, message: CheckpointAnswer) -> None:
        """The agent answered as a witness."""
        waiting, self._checkpoint = self._checkpoint, None
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def told(self, message: ItemDone | ItemRefused) -> None:
        """The agent answered for an item."""
        waiting = self._items.pop((message.request, message.item, message.fence), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def told_outcome(self, message: OutcomeReply) -> None:
        """The agent answered a question."""
        waiting = self._outcomes.pop((message.request, message.item, message.fence), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def close(self) -> None:
        """The link is gone: everybody who waits is told."""
        self._closed = True
        everybody: list[asyncio.Future[Any]] = [
            *self._items.values(),
            *self._outcomes.values(),
            *self._unlocks.values(),
        ]
        if self._checkpoint is not None:
            everybody.append(self._checkpoint)
        for waiting in everybody:
            if not waiting.done():
                waiting.set_exception(self._lost())
                waiting.exception()  # a future that nobody awaits any more must not warn
        self._items.clear()
        self._outcomes.clear()

    def _lost(self) -> UnavailableError:
        return UnavailableError("agent.link_lost", f"the link to agent {self.agent.name!r} was lost")
