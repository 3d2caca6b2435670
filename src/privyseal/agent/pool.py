# SPDX-License-Identifier: Apache-2.0
"""Several workers for one token whose module allows parallel sessions, such as a network HSM."""

import asyncio
from contextlib import AbstractContextManager
from typing import Final, Protocol

from privyseal.agent.ladder import Rung
from privyseal.agent.recovery import RecoveringToken, Signing
from privyseal.errors import PrivysealError
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import KeyCounter, ReaderUse, Secret, TokenInfo, TokenKey, UnlockableToken

__all__ = ["KeptToken", "TokenPool"]


class KeptToken(UnlockableToken, Protocol):
    """A token that recovers by itself, with one worker or with several."""

    @property
    def starts(self) -> int:
        """How often a worker was started."""
        ...

    @property
    def signing(self) -> Signing:
        """What it has done since the agent was started."""
        ...

    @property
    def pin_error(self) -> PrivysealError | None:
        """The last failure that a person must look into before the PIN may be presented again."""
        ...

    @property
    def trouble(self) -> str:
        """Why it makes no headway now; empty if it does."""
        ...

    @property
    def possible(self) -> frozenset[Rung]:
        """The rungs of the recovery ladder that it has."""
        ...

    async def glance(self) -> TokenInfo:
        """As `info`, without a single step of recovery: for a token that is probably not there."""
        ...

    def resting(self, *, when: bool = True) -> AbstractContextManager[None]:
        """Within this no step of recovery is taken (if `when`)."""
        ...

    async def step(self, rung: Rung, reason: PrivysealError) -> None:
        """Take one step because a person asks for it.

        Raises:
            PrivysealError: it could not be taken.
        """
        ...


class TokenPool:
    """A `KeptToken` that signs with whichever worker is idle."""

    def __init__(self, members: tuple[RecoveringToken, ...]) -> None:
        self._members: Final = members
        self._idle: Final[asyncio.Queue[RecoveringToken]] = asyncio.Queue()
        for member in members:
            self._idle.put_nowait(member)

    @property
    def starts(self) -> int:
        """How often a worker was started, all together."""
        return sum(member.starts for member in self._members)

    @property
    def signing(self) -> Signing:
        """What all of them have done."""
        return sum((member.signing for member in self._members), start=Signing())

    @property
    def pin_error(self) -> PrivysealError | None:
        """That of the first worker that has one."""
        return next((member.pin_error for member in self._members if member.pin_error is not None), None)

    @property
    def trouble(self) -> str:
        """See `KeptToken.trouble`: that of all workers, as one that makes headway is enough."""
        return min(member.trouble for member in self._members)

    @property
    def possible(self) -> frozenset[Rung]:
        """See `KeptToken.possible`."""
        return self._members[0].possible

    async def info(self) -> TokenInfo:
        """See `Token.info`; the first worker answers for all."""
        return await self._members[0].info()

    def resting(self, *, when: bool = True) -> AbstractContextManager[None]:
        """See `KeptToken.resting`; the first worker is the one that is looked at."""
        return self._members[0].resting(when=when)

    async def keys(self) -> tuple[TokenKey, ...]:
        """See `Token.keys`; the others log in when they are first needed, after the first one's PIN was accepted."""
        keys = await self._members[0].keys()
        for member in self._members:
            member.pin_error = None
        return keys

    async def glance(self) -> TokenInfo:
        """See `KeptToken.glance`."""
        return await self._members[0].glance()

    async def counters(self) -> tuple[KeyCounter, ...]:
        """See `Token.counters`."""
        return await self._members[0].counters()

    async def reader_use(self) -> ReaderUse | None:
        """See `Token.reader_use`; None as nobody can tell whose connection is whose among several workers."""
        return await self._members[0].reader_use() if len(self._members) == 1 else None

    async def probe(self, count: int) -> tuple[int, ...] | None:
        """See `Token.probe`; None as several workers hold sessions with it."""
        return await self._members[0].probe(count) if len(self._members) == 1 else None

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        """See `Token.sign`."""
        member = await self._idle.get()
        try:
            return await member.sign(key_id=key_id, mechanism=mechanism, digest=digest)
        finally:
            self._idle.put_nowait(member)

    async def recycle(self) -> None:
        """End the workers one after the other, so that the rest goes on signing."""
        for member in self._members:
            await member.recycle()

    async def unlock(self, pin: bytes | bytearray | memoryview) -> None:
        """See `UnlockableToken.unlock`: each worker has the PIN."""
        for member in self._members:
            await member.unlock(pin)

    async def forget_pin(self) -> None:
        """See `UnlockableToken.forget_pin`."""
        for member in self._members:
            await member.forget_pin()

    async def change_pin(self, new: Secret) -> None:
        """See `ManagedToken.change_pin`: the first worker does it, the others log in with the new PIN afterwards."""
        first, *others = self._members
        await first.change_pin(new)
        for member in others:
            await member.adopt_pin(new)

    async def step(self, rung: Rung, reason: PrivysealError) -> None:
        """See `KeptToken.step`: what is the worker's own is done to each, what is the host's once."""
        own = rung in (Rung.SESSION, Rung.MODULE, Rung.WORKER)
        for member in self._members if own else self._members[:1]:
            await member.step(rung, reason)

    async def close(self) -> None:
        """See `Token.close`."""
        await asyncio.gather(*(member.close() for member in self._members))
