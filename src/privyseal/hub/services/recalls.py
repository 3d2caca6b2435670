# SPDX-License-Identifier: Apache-2.0
"""Asking back of an agent what its token has not begun: for a higher class, or because it is not wanted any more."""

from collections.abc import Sequence
from typing import Final

import structlog

from privyseal.errors import UnavailableError
from privyseal.hub.links import AgentLink
from privyseal.hub.services.under_way import Pace, UnderWay
from privyseal.policy.fair_queue import Priority
from privyseal.wire.jobs import Recall

__all__ = ["Recalls"]

_LOG: Final = structlog.get_logger("privyseal.hub.lane")


class Recalls:
    """What is asked back of one token.

    Attributes:
        count: How often something was.
    """

    def __init__(self, token: str, pace: Pace) -> None:
        """`token` is its name at its agent; `pace` learns that a higher class has come."""
        self._token: Final = token
        self._pace: Final = pace
        self.count = 0

    def lower(self, under_way: Sequence[UnderWay], priority: Priority) -> tuple[UnderWay, ...]:
        """What gives way to a higher class from now on: `for_higher` asks for it."""
        lower = tuple(one for one in under_way if one.priority < priority and not one.gives_way)
        if lower:
            self._pace.disturbed(priority)
        for one in lower:
            one.gives_way = True
        return lower

    async def for_higher(self, link: AgentLink, lower: Sequence[UnderWay]) -> None:
        """A higher class wants the token: the holder of a lease that has begun is asked to finish."""
        names = tuple(part.request.id for one in lower for part in one.batch.parts)
        await self._send(link, lower, Recall(token=self._token, requests=names, asks=True))

    async def of_requests(
        self, link: AgentLink, under_way: Sequence[UnderWay], request_ids: tuple[str, ...], reason: str
    ) -> None:
        """These are not wanted here any more: a lease that has begun ends."""
        found = [one for one in under_way if any(part.request.id in request_ids for part in one.batch.parts)]
        if found:
            await self._send(link, found, Recall(token=self._token, requests=request_ids, reason=reason))

    async def _send(self, link: AgentLink, found: Sequence[UnderWay], recall: Recall) -> None:
        self.count += 1
        for one in found:
            one.recalled = True
        try:
            await link.send(recall)
        except UnavailableError as error:
            _LOG.warning("not recalled", token=self._token, reason=error.message)
