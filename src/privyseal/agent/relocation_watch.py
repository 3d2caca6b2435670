# SPDX-License-Identifier: Apache-2.0
"""Looks for signs that a token is in another place than the one on record: USB, its card's answers, the network."""

import asyncio
import math
import secrets
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import structlog

from privyseal.agent.config import TokenTable
from privyseal.agent.custody_spans import Reason
from privyseal.agent.network_place import SeenNetwork, hashed
from privyseal.agent.relocation import ROUND_SAMPLES, Network, PlaceRecord, Sight, is_settled, saw
from privyseal.agent.turns import Turns
from privyseal.errors import TokenError, UsbError
from privyseal.ports.journal import AgentJournal
from privyseal.usb.host import UsbHost
from privyseal.usb.selector import parse_selector
from privyseal.usb.topology import UsbPlace

__all__ = ["Probed", "RelocationWatch"]

_LOG: Final = structlog.get_logger("privyseal.agent.token")
#: Between two measurements of a card that answers as ever: each costs a login.
_TIMING_SECONDS: Final = 3600.0
#: Between two looks at the network: a router that starts anew is no other place.
_NETWORK_SECONDS: Final = 60.0
_SALT_BYTES: Final = 32


class Probed(Protocol):
    """What is wanted of a token."""

    async def probe(self, count: int) -> tuple[int, ...] | None:
        """See `Token.probe`."""
        ...


class _Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What outlives the agent's process.

    Attributes:
        salt: Of the network's hashes; it stays on this host.
    """

    salt: bytes
    record: PlaceRecord = PlaceRecord()


class RelocationWatch:
    """The watch over one token's place. Its calls come one at a time, as long as the token answers."""

    def __init__(
        self,
        table: TokenTable,
        token: Probed,
        *,
        turns: Turns,
        journal: AgentJournal,
        usb: UsbHost,
        network: Callable[[], SeenNetwork | None],
        is_busy: Callable[[], bool],
    ) -> None:
        """Watch a token.

        Args:
            table: What agent.toml says of it.
            token: Measures its card.
            turns: Of those who sign with it; it is at rest while its card is measured.
            journal: Where the place is known again after a restart.
            usb: The host's USB devices.
            network: Reads what the host sees of its network.
            is_busy: Whether the host is so busy that a card's answers may be late for that alone.
        """
        self._table: Final = table
        self._token: Final = token
        self._turns: Final = turns
        self._journal: Final = journal
        self._usb: Final = usb
        self._network: Final = network
        self._is_busy: Final = is_busy
        self._is_on: Final = table.relocation != "off" and table.kind != "software"
        self._is_sticky: Final = table.relocation == "quarantine"
        self._kept: _Memory | None = None
        self._memory: _Memory | None = None
        self._timing_s = -math.inf
        self._network_s = -math.inf

    @property
    def standing(self) -> tuple[Reason, ...]:
        """The signals that stand, the weightiest first."""
        return self._memory.record.standing if self._is_on and self._memory is not None else ()

    @property
    def problem(self) -> TokenError | None:
        """Why the token is not used before a person accepts its place; None if it may be."""
        return _relocated(self._table.name, self.standing) if self._is_sticky and self.standing else None

    def came(self) -> None:
        """The token was not there, and is again: its card is measured with the next look."""
        self._timing_s = self._network_s = -math.inf

    async def looked(self) -> None:
        """Look, and hold what is seen against the record.

        Raises:
            PrivysealError: what the token and the journal raise.
        """
        if not self._is_on:
            return
        memory = await self._recalled()
        sight = await self._sight(memory)
        before = memory.record.standing
        self._memory = memory = _Memory(salt=memory.salt, record=saw(memory.record, sight, is_sticky=self._is_sticky))
        if memory.record.standing != before:
            self._say(memory.record.standing)
        if memory != self._kept:
            await self._keep(memory)

    async def accept(self) -> bool:
        """A person has accepted the place in which the token is now: it is put on record with the next looks.

        Returns:
            Whether something stood against it.

        Raises:
            PrivysealError: what the journal raises.
        """
        if not self._is_on:
            return False
        memory = await self._recalled()
        await self._keep(_Memory(salt=memory.salt, record=PlaceRecord(may_be_imported=True)))
        self._memory = self._kept
        self.came()
        return bool(memory.record.standing)

    async def _recalled(self) -> _Memory:
        if self._memory is None:
            data = await self._journal.recall(self._name)
            fresh = _Memory(salt=secrets.token_bytes(_SALT_BYTES))
            self._memory = fresh if data is None else msgspec.json.decode(data, type=_Memory)
            self._kept = None if data is None else self._memory
        return self._memory

    async def _keep(self, memory: _Memory) -> None:
        await self._journal.remember(self._name, msgspec.json.encode(memory))
        self._kept = memory

    async def _sight(self, memory: _Memory) -> Sight:
        place, is_hidden = await self._place()
        return Sight(
            place=place,
            is_hidden=is_hidden,
            round_trips_us=await self._round_trips(memory.record),
            network=self._seen_network(memory.salt),
        )

    async def _place(self) -> tuple[UsbPlace | None, bool]:
        """Where the token's device hangs, and whether it was looked for in vain."""
        if not self._table.usb:
            return None, False
        try:
            return await self._usb.place(await self._usb.find(parse_selector(self._table.usb))), False
        except UsbError as error:
            return None, error.code == "usb.not_found"

    async def _round_trips(self, record: PlaceRecord) -> tuple[int, ...]:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._timing_s < _TIMING_SECONDS and is_settled(record, Reason.CARD_TIMING):
            return ()
        if self._timing_s == math.inf or self._is_busy():
            return ()
        async with self._turns.rest():
            round_trips_us = await self._token.probe(ROUND_SAMPLES)
        self._timing_s = now_s if round_trips_us else math.inf  # what cannot be measured is not tried with each look
        if not round_trips_us or self._is_busy():
            return ()
        return round_trips_us

    def _seen_network(self, salt: bytes) -> Network | None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._network_s < _NETWORK_SECONDS:
            return None
        self._network_s = now_s
        seen = self._network()
        return None if seen is None else hashed(seen, salt)

    def _say(self, standing: tuple[Reason, ...]) -> None:
        if standing:
            _LOG.warning(
                "token may be in another place",
                token=self._table.name,
                signals=[signal.value for signal in standing],
                next=f"if that is right: privyseal token resume {self._table.name} --dir DIR; see docs/custody.md",
            )
        else:
            _LOG.info("token is in its place again", token=self._table.name)

    @property
    def _name(self) -> str:
        return f"relocation {self._table.name}"


def _relocated(name: str, standing: tuple[Reason, ...]) -> TokenError:
    return TokenError(
        "token.relocated",
        f"token {name!r} is in quarantine: it may be in another place ({', '.join(standing)})",
        hint=f"if that is right, on the token's host: privyseal token resume {name} --dir DIR",
    )
