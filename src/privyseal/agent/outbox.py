# SPDX-License-Identifier: Apache-2.0
"""What the agent wants on record: durable here first, then told to the hub until that has it in the log."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
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


class Outbox:
    """Events of one agent on their way to its hub: one message under way at a time."""

    def __init__(self, *, journal: AgentJournal, clock: Clock, request_key: bytes) -> None:
        """`request_key` is the agent's raw public key."""
        self._journal: Final = journal
        self._clock: Final = clock
        self._agent: Final = hashlib.sha256(request_key).hexdigest()
        #: What a full disk kept out of the journal.
        self._unwritten: list[bytes] = []
        #: Several tokens tell at once; each event is written by one of them.
        self._writing: Final = asyncio.Lock()
        self._send: Callable[[Events], Awaitable[None]] | None = None
        self._under_way = False

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
            await self._flush()

    async def linked(self, recorded: int, send: Callable[[Events], Awaitable[None]]) -> None:
        """A link stands; the hub has what was told up to the number `recorded`.

        Raises:
            MalformedInputError: as `recorded`.
        """
        self._send = send
        await self.recorded(recorded)

    def unlinked(self) -> None:
        """The link is gone: what was under way is told again over the next one."""
        self._send = None
        self._under_way = False

    async def recorded(self, through: int) -> None:
        """The hub has events on record; the next ones go out.

        Raises:
            MalformedInputError: `link.malformed` if no agent can have told so many.
        """
        if not 0 <= through <= _MOST_NUMBERS:
            raise MalformedInputError("link.malformed", f"the hub has {through} events of this agent on record")
        await self._journal.events_recorded(through)
        self._under_way = False
        await self._flush()

    async def _flush(self) -> None:
        send = self._send
        if send is None or self._under_way:
            return
        self._under_way = True
        try:
            events = await self._journal.events(_AT_ONCE)
        except BaseException:
            self._under_way = False
            raise
        if send is not self._send:
            return  # another link stands, and has begun by itself
        if not events:
            self._under_way = False
            return
        await send(Events(events=tuple(AgentEvent(seq=one.seq, entry=one.entry) for one in events)))
