# SPDX-License-Identifier: Apache-2.0
"""Custody of one token as its keeper sees it: each look is also a look at who else could have used its keys."""

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Final

from privyseal.agent.custody import Custodian, strangers
from privyseal.agent.keys import SeenToken
from privyseal.agent.pool import KeptToken
from privyseal.agent.relocation_watch import RelocationWatch
from privyseal.agent.turns import Turns
from privyseal.ports.token import ReaderUse

__all__ = ["TokenCustody"]


class TokenCustody:
    """Tells a `Custodian` what happens to the token, and has its counters read while nothing is signed.

    Attributes:
        use: Who was connected to pcscd at the last look, as this token's worker saw it.
        place: Whether it may be in another place than the one on record.
        counter: The token's signature counter as it was last read (the highest of several); None if it has none.
    """

    def __init__(
        self,
        custodian: Custodian,
        token: KeptToken,
        *,
        turns: Turns,
        count_seconds: float,
        beside: Callable[[], Iterable[ReaderUse]],
        place: RelocationWatch,
    ) -> None:
        """Watch a token.

        Args:
            custodian: Says what can be shown.
            token: The token.
            turns: Of those who sign with it; it is at rest while its counters are read.
            count_seconds: How often its signature counter is read, which costs a login; 0 for never.
            beside: What the workers of the agent's other tokens saw last.
            place: Says whether it may be in another place.
        """
        self._custodian: Final = custodian
        self._token: Final = token
        self._turns: Final = turns
        self._count_seconds: Final = count_seconds
        self._counted_s = 0.0
        self._beside: Final = beside
        self.place: Final = place
        self._starts = 0
        self.use: ReaderUse | None = None
        self.counter: int | None = None

    @property
    def frozen(self) -> frozenset[str]:
        """Keys that must not be used: SHA-256 of the SubjectPublicKeyInfo, in hex."""
        return self._custodian.frozen

    async def came(self, seen: SeenToken) -> None:
        """The token is there (again); its counters are held against the journal before it signs anything.

        Raises:
            PrivysealError: what the token and the journal raise.
        """
        self._starts = self._token.starts
        await self._custodian.attached(seen.info, seen.keys)
        self._counted_s = -math.inf
        self.place.came()
        await self.looked()

    async def looked(self) -> None:
        """The token was looked at, and is well.

        Raises:
            PrivysealError: what the token and the journal raise.
        """
        use = await self._token.reader_use()
        if self._token.starts != self._starts:  # asked afterwards: a worker may have been replaced for this very look
            self._starts = self._token.starts
            self._custodian.worker_changed()
        await self.place.looked()
        await self._custodian.looked(
            healthy=True,
            others=strangers(use, self._beside()),
            card_events=use.card_events if use else None,
            moved=next(iter(self.place.standing), None),
        )
        now_s = asyncio.get_running_loop().time()
        if 0 < self._count_seconds <= now_s - self._counted_s:
            self._counted_s = now_s
            async with self._turns.rest():
                counters = await self._token.counters()
                await self._custodian.reconcile(counters)
            self.counter = max((one.count for one in counters), default=None)
        self.use = use  # last: a card that was away is looked at anew also if the journal failed meanwhile

    async def gone(self) -> None:
        """The token was looked for, and is not there.

        Raises:
            PrivysealError: what the journal raises.
        """
        self.use = None
        await self._custodian.detached()

    async def ill(self) -> None:
        """The token does not answer as it should.

        Raises:
            PrivysealError: what the journal raises.
        """
        self.use = None
        await self._custodian.looked(healthy=False, others=None, card_events=None)

    async def stop(self) -> None:
        """The agent ends in order.

        Raises:
            PrivysealError: what the journal raises.
        """
        await self._custodian.stopping()
