# SPDX-License-Identifier: Apache-2.0
"""What jobs are for: key profiles with the token that signs, and USB devices that are lent."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from privyseal.agent.check import CheckedItem, KeyProfile
from privyseal.agent.turns import Turns
from privyseal.errors import VerificationError
from privyseal.formats.model import Preimage
from privyseal.formats.usb import LeaseOrder, read_lease
from privyseal.ports.token import Token

__all__ = ["Borrower", "Lender", "Served", "ServedDevice", "ServedKey"]


class Served(Protocol):
    """What the items of a job are carried out with."""

    @property
    def profile(self) -> KeyProfile:
        """As agent.toml describes it."""
        ...

    @property
    def turns(self) -> Turns:
        """Of those who use the token; its profiles, and the device that it is, share them."""
        ...

    def turn(self) -> AbstractAsyncContextManager[None]:
        """What an item is carried out in."""
        ...

    async def carry_out(self, request: str, item: CheckedItem) -> bytes:
        """Carry out an item, in its turn.

        Args:
            request: Its request's id.
            item: What to do.

        Returns:
            The signature, or what a lease was used for.

        Raises:
            PrivysealError: what came in between.
        """
        ...

    def recall(self, requests: Sequence[str], *, asks: bool, reason: str = "") -> None:
        """What has begun of these requests (of all, if none is named) shall end soon; at once unless it `asks`.

        `reason` is for who has a lease.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedKey:
    """A key profile with the token that signs for it.

    Attributes:
        turns: Of those who sign with the token; its profiles share them.
    """

    profile: KeyProfile
    token: Token
    key_id: bytes
    turns: Turns = field(default_factory=Turns)

    def turn(self) -> AbstractAsyncContextManager[None]:
        """See `Served.turn`."""
        return self.turns

    async def carry_out(self, request: str, item: CheckedItem) -> bytes:  # noqa: ARG002 - a signature is anybody's
        """See `Served.carry_out`."""
        if item.mechanism is None:
            raise VerificationError("job.items", "a key signs by a mechanism, and the item names none")
        return await self.token.sign(key_id=self.key_id, mechanism=item.mechanism, digest=item.digest)

    def recall(self, requests: Sequence[str], *, asks: bool, reason: str = "") -> None:
        """See `Served.recall`: a signature ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Borrower:
    """Who borrows a device.

    Attributes:
        request: Id of the request.
        idempotency_key: Of its statement.
        order: What was asked for.
    """

    request: str
    idempotency_key: str
    order: LeaseOrder


class Lender(Protocol):
    """Lends one USB device."""

    async def lend(self, borrower: Borrower) -> bytes:
        """Lend the device until its lease ends, and get it back: then nothing of the holder's is left in it.

        Returns:
            What the lease was used for (`privyseal.wire.leases.encode_report`).

        Raises:
            PrivysealError: it was not lent.
        """
        ...

    def recall(self, requests: Sequence[str], *, asks: bool, reason: str = "") -> None:
        """See `Served.recall`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedDevice:
    """A USB device that is lent as a whole: nobody else uses the token meanwhile.

    Attributes:
        turns: Of those who use it as a token.
    """

    profile: KeyProfile
    lender: Lender
    turns: Turns = field(default_factory=Turns)

    def turn(self) -> AbstractAsyncContextManager[None]:
        """See `Served.turn`."""
        return self.turns.rest()

    async def carry_out(self, request: str, item: CheckedItem) -> bytes:
        """See `Served.carry_out`."""
        order = read_lease(Preimage(signed=item.signed))
        if order.device != self.profile.name:
            raise VerificationError("job.items", f"the lease is for device {order.device!r}, not for this one")
        return await self.lender.lend(Borrower(request=request, idempotency_key=item.idempotency_key, order=order))

    def recall(self, requests: Sequence[str], *, asks: bool, reason: str = "") -> None:
        """See `Served.recall`."""
        self.lender.recall(requests, asks=asks, reason=reason)
