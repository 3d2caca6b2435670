# SPDX-License-Identifier: Apache-2.0
"""What agents tell of their tokens goes into the log, each event once and in the order of its agent's numbers."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from privyseal.errors import DeniedError, MalformedInputError
from privyseal.ports.store import Enrolment, ReadTx, Store, Tx
from privyseal.tlog.entry import AgentEntry, encode_entry, parse_entry
from privyseal.wire.link import AgentEvent

__all__ = ["AgentEvents"]

#: An agent that tells more than this has to wait until that is on record, and tells nothing more meanwhile.
_PER_MINUTE: Final = 120
_MINUTE_SECONDS: Final = 60.0


class AgentEvents:
    """Writes the entries of `privyseal.tlog.agent_entries`."""

    def __init__(
        self,
        store: Store,
        told: Callable[[Enrolment, int, AgentEntry], None] = lambda _agent, _index, _entry: None,
        *,
        continues: bool = False,
        minute_seconds: float = _MINUTE_SECONDS,
    ) -> None:
        """Write events into a log.

        Args:
            store: The log.
            told: Called with each event that is on record now: its agent, its index, its entry.
            continues: Whether the log continues a former one, in which agents may have told events already.
            minute_seconds: How long a minute is.
        """
        self._store: Final = store
        self._told: Final = told
        self._continues: Final = continues
        self._minute_seconds: Final = minute_seconds
        #: When the last event of an agent was due, by the loop's clock.
        self._due_s: dict[bytes, float] = {}

    async def recorded(self, agent: Enrolment) -> int:
        """The number of the agent's last event that is on record."""
        return await self._store.read(lambda tx: _recorded(tx, agent))

    async def record(self, agent: Enrolment, events: tuple[AgentEvent, ...]) -> int:
        """Put events on record; those that are already are passed over.

        In a log that continues a lost one the first one of an agent may have any number: it begins where the agent is.
        In another one it is 1, as nobody could tell what was left out before it: whoever checks the log says so.

        Returns:
            The number of the agent's last event on record, once that is durable.

        Raises:
            MalformedInputError: what is no entry of this kind, or skips a number. PrivysealError: as `Store.write`.
        """
        told = [_told(event) for event in events]

        async def write(tx: Tx) -> tuple[int, list[tuple[int, AgentEntry]]]:
            last = await _recorded(tx, agent)
            fresh = []
            for event in told:
                if event.seq <= last:
                    continue
                if event.seq != last + 1 and (last or not self._continues):
                    raise MalformedInputError(
                        "link.event_gap", f"agent {agent.name!r} tells event {event.seq} after {last}"
                    )
                last = event.seq
                key = hashlib.sha256(agent.request_key).hexdigest()
                entry = msgspec.structs.replace(event, agent=key, ts=await tx.now_ms())
                fresh.append((await tx.append(encode_entry(entry)), entry))
            await tx.put_agent_seq(agent.request_key, last)
            return last, fresh

        await self._pause(agent, len(events))
        through, fresh = await self._store.write(write)
        for index, entry in fresh:
            self._told(agent, index, entry)
        return through

    async def _pause(self, agent: Enrolment, count: int) -> None:
        """Nobody can fill the log: whoever tells much waits for each minute's share.

        Before anything is written, as to hang up and dial in anew ends the wait; and only who waited to its end pays,
        so that an agent whose link often breaks comes to its turn.
        """
        now_s = asyncio.get_running_loop().time()
        from_s = max(self._due_s.get(agent.request_key, 0.0), now_s - self._minute_seconds)
        due_s = from_s + count * self._minute_seconds / _PER_MINUTE
        await asyncio.sleep(due_s - now_s)
        self._due_s[agent.request_key] = due_s


async def _recorded(tx: ReadTx, agent: Enrolment) -> int:
    return await tx.agent_seq(agent.request_key)


def _told(event: AgentEvent) -> AgentEntry:
    entry = parse_entry(event.entry)
    if not isinstance(entry, AgentEntry):
        raise DeniedError("link.event", f"an agent tells no {entry.__struct_config__.tag} entries")
    return msgspec.structs.replace(entry, seq=event.seq)
