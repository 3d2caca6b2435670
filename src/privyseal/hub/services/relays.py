# SPDX-License-Identifier: Apache-2.0
"""Streams of USB leases on their way through this hub: two ends that belong to one request, and bytes between them.

What they carry is closed to the hub (`identity/pinned_pipe.py`). An end that waits is not read from, and one that does
not take what is sent to it stops the other one from being read: a relay holds one piece for each direction, beside what
the connections themselves buffer.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import structlog

from privyseal.errors import ConfigError, ConflictError, UnavailableError
from privyseal.hub.services.withdrawing import unknown_request
from privyseal.ports.clock import Clock
from privyseal.ports.pipe import Pipe
from privyseal.ports.queue import JobState
from privyseal.ports.store import Enrolment, ReadTx, Store

__all__ = ["Relay", "RelayEnd", "RelayLimits", "Relays", "Side"]

_LOG: Final = structlog.get_logger("privyseal.hub.relay")


class Side(Enum):
    """Whose end it is."""

    CLIENT = "client"
    AGENT = "agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """Bounds.

    Attributes:
        most: Ends at this hub, waiting or paired.
        most_of_a_member: Ends of one client or agent.
        pair_seconds: How long one end waits for the other.
        look_seconds: How often it is looked whether the members still stand, which another hub may have ended.
    """

    most: int = 256
    most_of_a_member: int = 16
    pair_seconds: float = 10.0
    look_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayEnd:
    """One connection."""

    request_id: str
    side: Side
    member: Enrolment
    pipe: Pipe


@dataclass(slots=True, kw_only=True, eq=False)
class Relay:
    """Two ends that have met.

    Attributes:
        since_ms: When they did.
        bytes_from: How much came from each side.
    """

    request_id: str
    ends: dict[Side, RelayEnd]
    since_ms: int
    bytes_from: Counter[Side] = field(default_factory=Counter)
    why: str = ""
    _carrying: "asyncio.Task[None] | None" = None

    @property
    def client(self) -> str:
        """Name of the client."""
        return self.ends[Side.CLIENT].member.name

    @property
    def agent(self) -> str:
        """Name of the agent."""
        return self.ends[Side.AGENT].member.name

    def begin(self, over: Callable[["Relay"], None]) -> None:
        """Carry until an end ends, and call `over` then."""
        self._carrying = asyncio.create_task(self._carry(), name=f"relay {self.request_id[:16]}")
        self._carrying.add_done_callback(lambda _: over(self))

    def end(self, why: str) -> None:
        """End it now."""
        if self._carrying is not None and not self._carrying.done():
            self.why = self.why or why
            self._carrying.cancel()

    async def finished(self) -> None:
        """Wait until nothing is carried any more."""
        if self._carrying is not None:
            await asyncio.wait((self._carrying,))

    async def _carry(self) -> None:
        ways = [asyncio.create_task(self._pump(side)) for side in Side]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            self.why = next(way.result() for way in ways if way.done())
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, side: Side) -> str:
        other = Side.AGENT if side is Side.CLIENT else Side.CLIENT
        source, sink = self.ends[side].pipe, self.ends[other].pipe
        try:
            while data := await source.receive():
                self.bytes_from[side] += len(data)
                try:
                    await sink.send(data)
                except OSError:
                    return f"the {other.value} is gone"
        except OSError:
            pass
        return f"the {side.value} is gone"


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    """An end whose other one has not come; `met` gives the relay, or why there is none."""

    end: RelayEnd
    met: "asyncio.Future[Relay | str]"

    def give_up(self, why: str) -> None:
        """Nobody comes."""
        if not self.met.done():
            self.met.set_result(why)


class Relays:
    """Pairs ends, carries what they say, and ends what may not go on.

    Attributes:
        carried_bytes: From each side, of relays that have ended.
        outcomes: Relays that began (`paired`), ends that waited in vain (`unpaired`) or found no place (`refused`).
    """

    def __init__(self, *, store: Store, clock: Clock, limits: RelayLimits | None = None) -> None:
        self._store: Final = store
        self._clock: Final = clock
        self._limits: Final = limits or RelayLimits()
        self._waiting: dict[str, _Waiting] = {}
        self._relays: dict[str, Relay] = {}
        self._members: Final[Counter[tuple[str, str]]] = Counter()
        self.carried_bytes: Final[Counter[Side]] = Counter()
        self.outcomes: Final[Counter[str]] = Counter()

    # -- who may --------------------------------------------------------------------------------------------------

    async def admit(self, side: Side, caller: Enrolment, request_id: str) -> None:
        """Whether a caller may have this end: a client's own request that is open, an agent's whose token it is at.

        Raises:
            ConfigError: `request.unknown`, `relay.not_here`. ConflictError: `relay.not_open`.
        """

        async def read(tx: ReadTx) -> None:
            request = await tx.request(request_id)
            if side is Side.CLIENT:
                if request is None or request.client != caller.name:
                    raise unknown_request(request_id, caller.name)
                if await tx.first_waiting(request_id) is None:
                    raise ConflictError(
                        "relay.not_open",
                        f"every item of request {request_id!r} has ended: there is nothing to be carried for it",
                    )
                return
            standings = () if request is None else await tx.standings(request_id)
            at = {one.token.partition("/")[0] for one in standings if one.state is JobState.INTENT}
            if caller.name not in at:
                raise ConfigError(
                    "relay.not_here", f"no open job of request {request_id!r} is at a token of agent {caller.name!r}"
                )

        await self._store.read(read)

    @contextmanager
    def place(self, caller: Enrolment) -> Iterator[None]:
        """Room for one more end, while the block runs.

        Raises:
            UnavailableError: `relay.too_many`.
        """
        member = (caller.role, caller.name)
        if self._members[member] >= self._limits.most_of_a_member or self._members.total() >= self._limits.most:
            self.outcomes["refused"] += 1
            raise UnavailableError(
                "relay.too_many",
                f"{caller.role} {caller.name!r} has {self._members[member]} streams through this hub, all together"
                f" have {self._members.total()}",
                hint=f"end one; a member may have {self._limits.most_of_a_member}, all together {self._limits.most}",
            )
        self._members[member] += 1
        try:
            yield
        finally:
            self._members[member] -= 1
            if not self._members[member]:
                del self._members[member]

    # -- pairs ----------------------------------------------------------------------------------------------------

    async def carry(self, end: RelayEnd) -> str:
        """Wait for the other end, and carry until it is over; why it is. The caller closes the pipe then."""
        if (before := self._relays.get(end.request_id)) is not None:
            before.end(f"another connection of the {end.side.value} took its place")
        there = self._waiting.get(end.request_id)
        if there is not None and there.met.done():  # it has given up just now
            there = None
        if there is not None and there.end.side is not end.side:
            del self._waiting[end.request_id]
            relay = self._meet(there.end, end)
            there.met.set_result(relay)
        else:
            if there is not None:
                there.give_up(f"another connection of the {end.side.value} took its place")
            met = await self._wait(end)
            if isinstance(met, str):
                self.outcomes["unpaired"] += 1
                return met
            relay = met
        try:
            await relay.finished()
        finally:
            relay.end(f"the {end.side.value} is gone")
        return relay.why

    async def _wait(self, end: RelayEnd) -> "Relay | str":
        waiting = _Waiting(end=end, met=asyncio.get_running_loop().create_future())
        self._waiting[end.request_id] = waiting
        other = "agent" if end.side is Side.CLIENT else "client"
        try:
            async with asyncio.timeout(self._limits.pair_seconds):
                return await waiting.met
        except TimeoutError:
            return f"the {other} did not come within {self._limits.pair_seconds:g} s"
        finally:
            if self._waiting.get(end.request_id) is waiting:
                del self._waiting[end.request_id]

    def _meet(self, *ends: RelayEnd) -> Relay:
        request_id = ends[0].request_id
        relay = Relay(request_id=request_id, ends={end.side: end for end in ends}, since_ms=self._clock())
        self._relays[request_id] = relay
        self.outcomes["paired"] += 1
        relay.begin(self._over)
        _LOG.info("relay begins", request=request_id, client=relay.client, agent=relay.agent)
        return relay

    def _over(self, relay: Relay) -> None:
        if self._relays.get(relay.request_id) is relay:
            del self._relays[relay.request_id]
        self.carried_bytes.update(relay.bytes_from)
        _LOG.info(
            "relay ended",
            request=relay.request_id,
            client=relay.client,
            agent=relay.agent,
            from_client_bytes=relay.bytes_from[Side.CLIENT],
            from_agent_bytes=relay.bytes_from[Side.AGENT],
            reason=relay.why,
        )

    # -- what may not go on ---------------------------------------------------------------------------------------

    def end_member(self, role: str, name: str) -> None:
        """End all that a member has here: it has no standing any more."""
        self._end_of(
            lambda member: (member.role, member.name) == (role, name), f"the standing of this {role} has ended"
        )

    async def run(self) -> None:
        """Look for members whose standing was ended elsewhere, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.look_seconds)
            await self.look()

    async def look(self) -> None:
        """The same once."""
        members = {end.member.certificate_sha256: end.member for end in self._ends()}
        if not members:
            return

        async def read(tx: ReadTx) -> frozenset[bytes]:
            gone = set()
            for fingerprint, member in members.items():
                enrolment = await tx.enrolment(member.role, member.name)
                if enrolment is None or enrolment.certificate_sha256 != fingerprint:
                    gone.add(fingerprint)
            return frozenset(gone)

        try:
            gone = await self._store.read(read)
        except UnavailableError as error:
            _LOG.warning("standings were not read", code=error.code, reason=error.message)
            return
        self._end_of(lambda member: member.certificate_sha256 in gone, "a standing was ended at another hub")

    def _ends(self) -> tuple[RelayEnd, ...]:
        paired = [end for relay in self._relays.values() for end in relay.ends.values()]
        return (*paired, *(waiting.end for waiting in self._waiting.values()))

    def _end_of(self, goes: Callable[[Enrolment], bool], why: str) -> None:
        for relay in tuple(self._relays.values()):
            if any(goes(end.member) for end in relay.ends.values()):
                relay.end(why)
        for waiting in tuple(self._waiting.values()):
            if goes(waiting.end.member):
                waiting.give_up(why)

    async def stop(self) -> None:
        """End all."""
        self._end_of(lambda _: True, "the hub stops")
        await asyncio.gather(*(relay.finished() for relay in tuple(self._relays.values())))

    # -- what there is --------------------------------------------------------------------------------------------

    @property
    def relays(self) -> tuple[Relay, ...]:
        """Those that carry something now, the oldest first."""
        return tuple(self._relays.values())

    @property
    def waiting(self) -> int:
        """Ends that wait for their other one."""
        return len(self._waiting)

    @property
    def bytes_from(self) -> Counter[Side]:
        """All that was carried so far, by whom it came from."""
        return sum((relay.bytes_from for relay in self.relays), start=Counter(self.carried_bytes))
