# SPDX-License-Identifier: Apache-2.0
"""How long a hub still holds the lease of a token, by the agent's own clock, and what waits for the token under it."""

from dataclasses import dataclass
from typing import Final, Protocol

from privyseal.errors import TokenError
from privyseal.ports.clock import Monotonic
from privyseal.wire.jobs import Recall

__all__ = ["TokenLease", "TokenLeases", "Waiting"]

#: What is taken off a lease for its way here and for the beginning of C_Sign: a fifth of it, but at most so much.
_MARGIN_SECONDS: Final = 1.0
_MARGIN_SHARE: Final = 5


@dataclass(slots=True, kw_only=True)
class TokenLease:
    """One hub's lease of one token. Its fence may grow while it has it: what waits under a lower one still waits.

    Attributes:
        hub: Over whose link it came: only compared.
        fence: The highest.
        ends_s: When what has not begun is not begun any more, by `monotonic`.
    """

    token: str
    hub: object
    fence: int
    monotonic: Monotonic
    ends_s: float

    @property
    def left_s(self) -> float:
        """How long something may still be begun; 0 or less if nothing may."""
        return self.ends_s - self.monotonic()

    def extend(self, since_s: float, lease_ms: int) -> None:
        """The hub holds it for so much longer, counted from a moment of `monotonic`. It never ends earlier by this."""
        seconds = lease_ms / 1000
        self.ends_s = max(self.ends_s, since_s + seconds - min(_MARGIN_SECONDS, seconds / _MARGIN_SHARE))


class Waiting(Protocol):
    """Items of one job of which some wait for their token."""

    @property
    def lease(self) -> TokenLease:
        """Under which they were sent."""
        ...

    def hand_back(self, why: TokenError, requests: tuple[str, ...] = ()) -> None:
        """What the token has not begun of these requests (of all, if none is named) is not begun any more."""
        ...


class TokenLeases:
    """The leases of an agent's tokens: of each token the one with the highest fence counts."""

    def __init__(self, monotonic: Monotonic) -> None:
        self._monotonic: Final = monotonic
        self._leases: dict[str, TokenLease] = {}
        self._waiting: list[Waiting] = []

    def forget(self) -> None:
        """The fences were those of another log."""
        self._leases.clear()

    def taken(self, token: str, fence: int, hub: object, *, since_s: float, lease_ms: int) -> TokenLease | None:
        """A hub shows that it has the lease of a token, under a fence that stands in the journal: its lease.

        What waits for the token by order of another hub is handed back. None if another one has it, under this fence or
        a higher one.
        """
        lease = self._leases.get(token)
        if lease is None or (lease.hub != hub and lease.fence < fence):
            self.hand_back(token, _not_used(f"another hub took the lease of token {token!r} under fence {fence}"))
            lease = TokenLease(token=token, hub=hub, fence=fence, monotonic=self._monotonic, ends_s=since_s)
            self._leases[token] = lease
        if lease.hub != hub or fence < lease.fence:
            return None
        lease.fence = fence
        lease.extend(since_s, lease_ms)
        return lease

    def over(self, token: str, hub: object) -> TokenLease:
        """A lease that another hub has: nothing is begun under it."""
        return TokenLease(token=token, hub=hub, fence=0, monotonic=self._monotonic, ends_s=self._monotonic())

    def recall(self, recall: Recall) -> None:
        """What a token has not begun is handed back."""
        for waiting in self._of(recall.token):
            waiting.hand_back(_not_used(f"the hub took back what waited for token {recall.token!r}"), recall.requests)

    def hand_back(self, token: str, why: TokenError) -> None:
        """Nothing of what waits for a token is begun any more."""
        for waiting in self._of(token):
            waiting.hand_back(why)

    def add(self, waiting: Waiting) -> None:
        """These wait from now on."""
        self._waiting.append(waiting)

    def remove(self, waiting: Waiting) -> None:
        """All of these have ended."""
        self._waiting.remove(waiting)

    def _of(self, token: str) -> list[Waiting]:
        return [waiting for waiting in self._waiting if waiting.lease.token == token]


def _not_used(what: str) -> TokenError:
    return TokenError("job.not_used", f"{what} before the item's turn came", hint="the hub queues it again")
