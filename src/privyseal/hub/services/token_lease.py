# SPDX-License-Identifier: Apache-2.0
"""A hub's hold on one token: taken when nobody else has it, put off while there is work, given back with the link."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from privyseal.errors import UnavailableError
from privyseal.hub.jobs import lease_taken
from privyseal.ports.queue import Lease
from privyseal.ports.store import Store, Tx
from privyseal.wire.jobs import LeaseRenewed

__all__ = ["Change", "Hold", "LeaseTerms", "TokenLease", "left_now_ms"]

_LOG: Final = structlog.get_logger("privyseal.hub.lane")


class LeaseTerms(Protocol):
    """What leases go by."""

    @property
    def store(self) -> Store:
        """Where they stand."""
        ...

    @property
    def holder(self) -> str:
        """What this process is called in them."""
        ...

    @property
    def lease_ms(self) -> int:
        """How long one lasts."""
        ...

    @property
    def alone(self) -> bool:
        """Whether no other process uses the database."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A lease that this process has.

    Attributes:
        left_ms: How long it lasted then, by the database's clock.
    """

    lease: Lease
    left_ms: int


#: A change of a lease, and what runs it in a transaction.
Change = Callable[[Tx], Awaitable[Hold | None]]
Writing = Callable[[Change], Awaitable[Hold | None]]


class TokenLease:
    """The lease of one token, given as `AGENT/TOKEN`.

    Attributes:
        held: Whether this process has it, and has settled what was open when it got it. The database decides: it may be
            another's meanwhile, and then nothing can be claimed under it.
    """

    def __init__(self, place: str, terms: LeaseTerms) -> None:
        self._place: Final = place
        self._terms: Final = terms
        self.held = False

    def is_mine(self, lease: Lease) -> bool:
        """Whether a lease is this process's, by what the database says."""
        return lease.holder == self._terms.holder

    def begin(self) -> None:
        """What was open is settled."""
        self.held = True

    def lose(self) -> None:
        """It must be taken again before anything is claimed."""
        self.held = False

    async def take(self, tx: Tx) -> Hold | None:
        """Take it, under a new fence if it was another's; None if it still is, or the agent has no standing."""
        if await tx.enrolment("agent", self._place.partition("/")[0]) is None:
            return None
        now_ms, found = await tx.database_ms(), await tx.leases()
        wanted = Lease(token=self._place, holder=self._terms.holder, fence=0, expires_ms=now_ms + self._terms.lease_ms)
        lease = lease_taken(
            next((one for one in found if one.token == self._place), None),
            wanted,
            now_ms=now_ms,
            highest=max((one.fence for one in found), default=0),
            alone=self._terms.alone,
        )
        if lease is None:
            return None
        await tx.put_lease(lease)
        return Hold(lease=lease, left_ms=lease.expires_ms - now_ms)

    async def renew(self, tx: Tx) -> Hold | None:
        """Put its end off; None if it is another's."""
        lease = await tx.lease(self._place)
        if lease is None or lease.holder != self._terms.holder:
            return None
        now_ms = await tx.database_ms()
        expires_ms = now_ms + self._terms.lease_ms
        # Written once in a while, and not with each claim.
        if expires_ms - lease.expires_ms > self._terms.lease_ms // 4:
            lease = replace(lease, expires_ms=expires_ms)
            await tx.put_lease(lease)
        return Hold(lease=lease, left_ms=lease.expires_ms - now_ms)

    async def give_back(self) -> None:
        """Let others take it at once."""

        async def write(tx: Tx) -> None:
            lease = await tx.lease(self._place)
            if lease is not None and lease.holder == self._terms.holder:
                await tx.put_lease(replace(lease, expires_ms=await tx.database_ms()))

        self.held = False
        try:
            await self._terms.store.write(write)
        except UnavailableError as error:
            _LOG.warning("lease not given back", token=self._place, reason=error.message)

    async def told(self, write: Writing, change: Change) -> LeaseRenewed | None:
        """Take it or put its end off (`change`), by `write`; what the agent is to be told of it then.

        A commit may take seconds, and the database's time runs meanwhile: what has passed is taken off.
        """
        since_s = asyncio.get_running_loop().time()
        hold = await write(change)
        if hold is None:
            return None
        token = self._place.partition("/")[2]
        return LeaseRenewed(token=token, fence=hold.lease.fence, lease_ms=left_now_ms(hold.left_ms, since_s))


def left_now_ms(left_ms: int, since_s: float) -> int:
    """What is left of a lease for certain; an agent must not be told of more.

    Args:
        left_ms: That lasted so long when the database was asked.
        since_s: When asking it began, by the event loop's clock.
    """
    return max(0, left_ms - math.ceil((asyncio.get_running_loop().time() - since_s) * 1000))
