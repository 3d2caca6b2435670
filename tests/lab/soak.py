# SPDX-License-Identifier: Apache-2.0
"""A run of many signatures on a token that fails now and then, and the accounts that must agree at its end.

Written against the `Token` port: whatever tries again inside of it, none may be lost, made twice, or called unbegun
although it was begun. The token's side of the accounts is the shim's log, which no failing process can take back.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.fault_shim import FaultyToken
from lab.shim_orders import aborts, chance, crashes_after, delays, hangs, returns
from privyseal.errors import TokenError, VerificationError
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.ports.token import Token

#: What a caller may meet that has an end: all but what the PIN's journal keeps back until a person acts.
_PASSING = frozenset(
    {
        "token.crashed",
        "token.failed",
        "token.key_not_found",
        "token.not_found",
        "token.session_lost",
        "token.timeout",
    }
)
_MOST_ATTEMPTS = 20


def soak_orders(*, percent: float, seed: int) -> tuple[str, ...]:
    """Faults of all kinds.

    Args:
        percent: How many of 100 signatures meet one, once a session is open. What opens a session fails ten times as
            often, as it is so seldom called.
        seed: Of the choice.

    None in C_Login: what it leaves unknown keeps the PIN back by design, which has tests of its own.
    """
    many_calls = (
        returns("C_GetAttributeValue", 0x82),
        hangs("C_SignInit"),
        aborts("C_SignInit"),
        returns("C_SignInit", 0x30),
        returns("C_SignInit", 0x32),
        returns("C_SignInit", 0xB3),
        returns("C_SignInit", 0x101),
        hangs("C_Sign"),
        aborts("C_Sign"),
        crashes_after("C_Sign"),
        returns("C_Sign", 0x30),
        returns("C_Sign", 0xB3),
        returns("C_Sign", 0xE0),
        "C_Sign short",
    )
    few_calls = (
        returns("C_Initialize", 0x5),
        aborts("C_Initialize"),
        "C_GetSlotList empty",
        returns("C_GetTokenInfo", 0xE0),
        returns("C_OpenSession", 0x30),
        crashes_after("C_OpenSession"),
        returns("C_FindObjectsInit", 0x90),
        returns("C_FindObjects", 0x30),
        aborts("C_FindObjects"),
        hangs("C_FindObjectsFinal"),
        returns("C_CloseSession", 0xB3),
        crashes_after("C_Finalize"),
    )
    rarely, often = percent / len(many_calls), percent * 10 / len(few_calls)
    return (
        *(f"{order} {chance(rarely, seed=seed + number)}" for number, order in enumerate(many_calls)),
        *(f"{order} {chance(often, seed=seed + 100 + number)}" for number, order in enumerate(few_calls)),
        delays("C_Sign", 5, chance(percent, seed=seed + 200)),
    )


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the caller was told, by digest (hexadecimal).

    Attributes:
        signatures: Those that were handed out.
        begun: Failures of which nobody may assume that the token did not sign.
        unbegun: How often a call failed before the token began.
        refused: Those that failed in every attempt, always before the token began.
    """

    signatures: dict[str, bytes] = field(default_factory=dict)
    begun: dict[str, TokenError] = field(default_factory=dict)
    unbegun: Counter[str] = field(default_factory=Counter)
    refused: dict[str, TokenError] = field(default_factory=dict)

    @property
    def errors(self) -> Counter[str]:
        """How often which error ended a digest's last attempt."""
        return Counter(error.code for error in (*self.begun.values(), *self.refused.values()))


async def soak(
    token: Token, *, key_id: bytes, mechanism: Mechanism, signatures: int, callers: int = 1, first: int = 0
) -> Tally:
    """Sign digests, each another one; what failed before it began is tried again, what began is not.

    Args:
        token: What signs.
        key_id: Of a key that signs with `mechanism`.
        mechanism: With a digest of 32 bytes.
        signatures: How many digests.
        callers: How many ask at a time.
        first: Number of the first digest, to go on after another run.

    Raises:
        TokenError: One that does not pass by itself, such as `token.pin_blocked`.
    """
    tally = Tally()
    numbers = iter(range(first, first + signatures))

    async def call() -> None:
        for number in numbers:
            await _sign(token, tally, key_id, mechanism, hashlib.sha256(number.to_bytes(8, "big")).digest())

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call())
    return tally


async def _sign(token: Token, tally: Tally, key_id: bytes, mechanism: Mechanism, digest: bytes) -> None:
    name = digest.hex()
    for attempt in range(1, _MOST_ATTEMPTS + 1):
        try:
            tally.signatures[name] = await token.sign(key_id=key_id, mechanism=mechanism, digest=digest)
        except TokenError as error:
            if error.code not in _PASSING:
                raise
            if error.begun:
                tally.begun[name] = error
                return
            tally.unbegun[name] += 1
            if attempt == _MOST_ATTEMPTS:
                tally.refused[name] = error
        else:
            return


def discrepancies(
    tally: Tally, faulty: FaultyToken, *, signatures: int, spki: bytes, mechanism: Mechanism
) -> list[str]:
    """Where the caller's account and the token's do not agree, in words; empty if nothing was lost or made twice."""
    begun, signed = faulty.begun(), faulty.signed()
    ends = Counter([*tally.signatures, *tally.begun, *tally.refused])
    return [
        *([f"{len(ends)} digests came to an end, of {signatures}"] if len(ends) != signatures else []),
        *(f"{name} came to {count} ends" for name, count in ends.items() if count != 1),
        *(f"{name} was begun {count} times" for name, count in begun.items() if count != 1),
        *(f"{name} was begun, and nobody asked for it" for name in begun.keys() - ends.keys()),
        *(f"{name} was handed out and never begun" for name in tally.signatures.keys() - begun.keys()),
        *(f"{name} was handed out and never signed" for name in tally.signatures.keys() - signed.keys()),
        *(f"{name} was called begun and never was" for name in tally.begun.keys() - begun.keys()),
        *(f"{name} was called unbegun and was begun" for name in tally.refused.keys() & begun.keys()),
        *_bad_signatures(tally.signatures, spki, mechanism),
    ]


def _bad_signatures(signatures: Mapping[str, bytes], spki: bytes, mechanism: Mechanism) -> list[str]:
    bad = []
    for name, signature in signatures.items():
        try:
            verify_digest(spki, mechanism, bytes.fromhex(name), signature)
        except VerificationError as error:
            bad.append(f"{name} has a bad signature: {error}")
    return bad
