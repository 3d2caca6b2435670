# SPDX-License-Identifier: Apache-2.0
"""The hub's end of an agent link, without its socket: who waits for which answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from privyseal.errors import UnavailableError
from privyseal.ports.store import Enrolment
from privyseal.wire.link import HubMessage, ItemDone, ItemRefused, OutcomeQuery, OutcomeReply

__all__ = ["AgentLink", "ItemKey"]

#: (request id, item, fence): at most one token operation for each (promise 4).
ItemKey = tuple[str, int, int]


class AgentLink:
    """A live link to one agent.

    Attributes:
        held_size: Size of the newest checkpoint that the agent holds, as far as the hub knows; the next job's
            consistency proof starts there.
    """

    def __init__(self, agent: Enrolment, send: Callable[[HubMessage], Awaitable[None]], *, held_size: int) -> None:
        self.agent = agent
        self.held_size = held_size
        #: A job's proof starts where the job before it ended, so jobs are built and sent one at a time.
        self.sending = asyncio.Lock()
        self._send = send
        self._items: dict[ItemKey, asyncio.Future[ItemDone | ItemRefused]] = {}
        self._outcomes: dict[ItemKey, asyncio.Future[OutcomeReply]] = {}
        self._closed = False

    async def send(self, message: HubMessage) -> None:
        """Send a message.

        Raises:
            UnavailableError: `agent.link_lost`.
        """
        if self._closed:
            raise self._lost()
        await self._send(message)

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
        everybody: list[asyncio.Future[Any]] = [*self._items.values(), *self._outcomes.values()]
        for waiting in everybody:
            if not waiting.done():
                waiting.set_exception(self._lost())
                waiting.exception()  # a future that nobody awaits any more must not warn
        self._items.clear()
        self._outcomes.clear()

    def _lost(self) -> UnavailableError:
        return UnavailableError("agent.link_lost", f"the link to agent {self.agent.name!r} was lost")
