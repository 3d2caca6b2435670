# SPDX-License-Identifier: Apache-2.0
"""What an agent will answer of one batch: in whatever order, as what was handed back comes before what is at work."""

import asyncio

from privyseal.hub.links import AgentLink
from privyseal.hub.services.claiming import Batch
from privyseal.hub.services.settling import Answered
from privyseal.ports.queue import Job, Request
from privyseal.tlog.entry import Intent
from privyseal.wire.jobs import ItemDone, ItemRefused

__all__ = ["Expected"]

_Open = tuple[Request, Job, Intent, "asyncio.Future[ItemDone | ItemRefused]"]


class Expected:
    """The items of a batch that have no answer yet; true while there are any."""

    def __init__(self, batch: Batch, link: AgentLink) -> None:
        """Expect them from now on.

        Raises:
            UnavailableError: `agent.link_lost`.
        """
        self._came = asyncio.Event()
        self._open: list[_Open] = [
            (part.request, job, intent, link.expect((job.request_id, job.item, job.fence)))
            for part in batch.parts
            for job, intent in zip(part.jobs, part.intents, strict=True)
        ]
        for *_, answer in self._open:
            answer.add_done_callback(lambda _: self._came.set())

    def __bool__(self) -> bool:
        return bool(self._open)

    async def next(self) -> list[Answered]:
        """What was answered since the last time, at least one; in the order of the batch.

        Raises:
            UnavailableError: `agent.link_lost`.
        """
        await self._came.wait()
        self._came.clear()
        came = [one for one in self._open if one[3].done()]
        self._open = [one for one in self._open if not one[3].done()]
        return [
            Answered(request=request, job=job, intent=intent, answer=answer.result())
            for request, job, intent, answer in came
        ]
