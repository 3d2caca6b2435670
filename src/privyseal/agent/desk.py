# SPDX-License-Identifier: Apache-2.0
"""PINs that come from a desk, over the hub, which is not believed: sealed, signed by authority keys, fresh, once."""

import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privyseal.agent.pins import TokenPins
from privyseal.errors import DeniedError, MalformedInputError, PrivysealError, UnavailableError, VerificationError
from privyseal.identity.authority import Unlock, open_authority
from privyseal.identity.trust import PinnedTrust
from privyseal.identity.unlocking import UNLOCK_MS, open_unlock
from privyseal.ports.clock import Clock
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import journal_name
from privyseal.wire.link import UnlockAnswer, UnlockOrder, UnlockQuery

__all__ = ["Desk"]

_NONCES: Final = 32
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    token: str
    serial: str
    at_ms: int


class Desk:
    """Answers those who hand in a PIN from elsewhere."""

    def __init__(self, *, name: str, key: X25519PrivateKey, trust: PinnedTrust, pins: TokenPins, clock: Clock) -> None:
        """Answer for an agent.

        Args:
            name: Of the agent.
            key: What PINs are sealed to.
            trust: The pinned bundle, whose authority keys must sign.
            pins: Of the agent's tokens.
            clock: The agent's own; nobody else's time counts.
        """
        self._name: Final = name
        self._key: Final = key
        self._trust: Final = trust
        self._pins: Final = pins
        self._clock: Final = clock
        self._asked: dict[str, _Asked] = {}
        self._open = 0

    async def answer(self, message: UnlockQuery | UnlockOrder) -> UnlockAnswer:
        """What the hub passes back; refusals are answers, too."""
        self._open += 1
        try:
            if self._open > _AT_ONCE:
                raise UnavailableError("unlock.busy", f"{_AT_ONCE} PINs are being handed in already", hint="try again")
            match message:
                case UnlockQuery():
                    return await self._question(message)
                case UnlockOrder():
                    return await self._unlock(message)
        except PrivysealError as error:
            return UnlockAnswer(
                ask=message.ask, branch=error.branch, code=error.code, message=error.message, hint=error.hint
            )
        finally:
            self._open -= 1

    async def _question(self, message: UnlockQuery) -> UnlockAnswer:
        serial = journal_name(await self._pins.named(message.token).glance())
        nonce = secrets.token_hex(16)
        self._asked[nonce] = _Asked(token=message.token, serial=serial, at_ms=self._clock())
        while len(self._asked) > _NONCES:
            del self._asked[next(iter(self._asked))]
        return UnlockAnswer(ask=message.ask, serial=serial, nonce=nonce)

    async def _unlock(self, message: UnlockOrder) -> UnlockAnswer:
        now_ms = self._clock()
        signed = open_authority(message.envelope, self._trust.bundle, now_ms)
        unlock = signed.statement
        if not isinstance(unlock, Unlock):
            raise MalformedInputError("authority.misplaced", "that statement hands in no PIN")
        self._check(unlock, now_ms)
        pin = PinBuffer()
        try:
            pin.fill(open_unlock(unlock, self._key))
            done = await self._pins.unlock(
                unlock.token,
                forgive_refused=unlock.forgive_refused,
                pin=pin,
                authority=signed.authorities[0],
                serial=unlock.serial,
            )
        finally:
            pin.wipe()
        return UnlockAnswer(ask=message.ask, serial=done.serial, keys=done.keys)

    def _check(self, unlock: Unlock, now_ms: int) -> None:
        """It is for this agent and token, and as fresh as its nonce, which is spent whatever comes of it."""
        if unlock.agent != self._name:
            raise DeniedError("unlock.agent", f"the PIN was handed in for agent {unlock.agent!r}, not {self._name!r}")
        asked = self._asked.pop(unlock.nonce, None)
        if asked is None:
            raise DeniedError(
                "unlock.nonce",
                "the agent did not give out the nonce of this unlock, or it was used before",
                hint="hand the PIN in once more",
            )
        age_ms = now_ms - asked.at_ms
        if not 0 <= age_ms <= UNLOCK_MS or unlock.not_after - unlock.issued > UNLOCK_MS:
            raise VerificationError(
                "unlock.late",
                f"an unlock is good for {UNLOCK_MS // 1000} s after the agent was asked; this one is not",
                hint="hand the PIN in once more",
            )
        if (unlock.token, unlock.serial) != (asked.token, asked.serial):
            raise _other_token(unlock.serial, asked.serial)


def _other_token(meant: str, present: str) -> DeniedError:
    return DeniedError("unlock.serial", f"the PIN was handed in for serial {meant!r}; asked was for {present!r}")
