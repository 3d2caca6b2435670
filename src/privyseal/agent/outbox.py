# SPDX-License-Identifier: Apache-2.0
"""What the agent wants on record: durable here first, then told to the hub until that has it in the log."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from privyseal.errors import MalformedInputError, UnavailableError
from privyseal.ports.clock import Clock
from privyseal.ports.journal import AgentJournal
from privyseal.tlog.entry import AgentEntry, encode_entry
from privyseal.wire.link import AgentEvent, Events

__all__ = ["EntryMaker", "Outbox"]

_LOG: Final = structlog.get_logger("privyseal.agent.outbox")
_AT_ONCE: Final = 64
#: No agent tells so much. A number near the largest that an entry can have would leave none for what comes.
_MOST_NUMBERS: Final = 2**48

#: Makes an entry out of what all of them have: ts, agent, seq, at.
EntryMaker = Callable[[int, str], AgentEntry]


#: Sends events over one link.
Send = Callable[[Events], Awaitable[None]]


@dataclass(frozen=True, slots=True, eq=False)
class _UnderWay:
    """A message that no hub has confirmed yet."""

    link: object


class Outbox:
    """Events of one agent on their way to its hub: one message under way at a time, over one of its links.

    Where several hubs share a log, any of them puts on record; the numbers tell it what it has.
    """

    def __init__(self, *, journal: AgentJournal, clock: Clock, request_key: bytes) -> None:
        """`request_key` is the agent's raw public key."""
        self._journal: Final = journal
        self._clock: Final = clock
        self._agent: Final = hashlib.sha256(request_key).hexdigest()
        #: What a full disk kept out of the journal.
        self._unwritten: list[bytes] = []
        #: Several tokens tell at once; each event is written by one of them.
        self._writing: Final = asyncio.Lock()
        self._links: dict[object, Send] = {}
        self._under_way: _UnderWay | None = None

    async def tell(self, make: EntryMaker) -> None:
        """Keep an event until it is on record; durable when this returns, unless the disk takes nothing now.

        Args:
            make: Makes the entry, given the time in milliseconds and the agent's name in the log.

        Raises:
            LogIntegrityError: `journal.commit_unknown`.
        """
        self._unwritten.append(encode_entry(make(self._clock(), self._agent)))
        try:
            await self.write()
        except UnavailableError as error:
            _LOG.error("events not written yet", count=len(self._unwritten), reason=error.message)

    async def write(self) -> None:
        """Write down what a full disk kept out of the journal; all that was told is durable when this returns.

        Raises:
            UnavailableError: `journal.unavailable` if it still does.
            LogIntegrityError: `journal.commit_unknown`.
        """
        async with self._writing:
            while self._unwritten:
                await self._journal.add_event(self._unwritten[0])
                del self._unwritten[0]
        with suppress(UnavailableError):  # they are in the journal, and go out with the next ones
            await self.flush()

    async def linked(self, link: object, recorded: int, send: Send) -> None:
        """A link stands; its hub has what was told up to the number `recorded`.

        Raises:
            MalformedInputError: as `recorded`.
        """
        self._links[link] = send
        await self.recorded(link, recorded)

    def unlinked(self, link: object) -> None:
        """The link is gone: what was under way is told again, over the next one or (by `flush`) over another."""
        self._links.pop(link, None)
        if self._under_way is not None and self._under_way.link is link:
            self._under_way = None

    async def recorded(self, link: object, through: int) -> None:
        """The hub at the other end of a link has events on record; the next ones go out.

        Raises:
            MalformedInputError: `link.malformed` if no agent can have told so many.
        """
        if not 0 <= through <= _MOST_NUMBERS:
            raise MalformedInputError("link.malformed", f"the hub has {through} events of this agent on record")
        await self._journal.events_recorded(through)
        if self._under_way is not None and self._under_way.link is link:
            self._under_way = None
        await self.flush()

    async def flush(self) -> None:
        """Send what is not on record, unless a message is under way already, or no link stands.

        Raises:
            UnavailableError: `journal.unavailable`. LogIntegrityError: `journal.commit_unknown`.
        """
        if self._under_way is not None or not self._links:
            return
        link, send = next(iter(self._links.items()))
        mine = self._under_way = _UnderWay(link)
        try:
            events = await self._journal.events(_AT_ONCE)
        except BaseException:
            if self._under_way is mine:
                self._under_way = None
            raise
        if self._under_way is not mine:
            return  # that link is gone, and another one goes on from here
        if not events:
            self._under_way = None
            return
        await send(Events(events=tuple(AgentEvent(seq=one.seq, entry=one.entry) for one in events)))
