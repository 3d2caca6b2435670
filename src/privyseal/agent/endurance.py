# SPDX-License-Identifier: Apache-2.0
"""Trying a token out: many signatures in a row, what they cost, what failed and what brought the token back."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from privyseal.agent.ladder import Rung
from privyseal.agent.recovery import RecoveringToken
from privyseal.errors import PrivysealError, TokenError, VerificationError
from privyseal.pki.mechanism import DIGEST_SIZES, Mechanism, mechanism_for, verify_digest
from privyseal.ports.token import TokenKey
from privyseal.tokens.supervisor import WorkerToken

__all__ = ["Endured", "endure"]


@dataclass(slots=True, kw_only=True)
class Endured:
    """What came of it.

    Attributes:
        seconds: Of each signature that was made, in their order.
        failures: By code, and the function if there is one.
        recoveries: Steps of the recovery ladder.
        wrong: Signatures that the key's public half does not verify.
        logins: How often a PIN was presented: once, and once more for each session that was lost.
        workers: How many worker processes were started.
    """

    asked: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    recoveries: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    logins: int = 0
    workers: int = 0

    def percentile(self, percent: float) -> float:
        """Seconds within which that part of the signatures was made; 0 if none was."""
        ordered = sorted(self.seconds)
        return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)] if ordered else 0.0


async def endure(
    token: WorkerToken, key: Callable[[tuple[TokenKey, ...]], TokenKey], count: int, went: Callable[[int], None]
) -> Endured:
    """Sign random digests with one key.

    Nothing on the token is changed. A PIN is presented again only where a session was lost, and only after this run
    has seen it accepted.

    Args:
        token: What to try.
        key: Chooses the key.
        count: How many signatures.
        went: Told how many have been asked for.

    Raises:
        TokenError: the token cannot be opened, or its PIN must not be presented any more.
    """
    endured = Endured()

    async def told(rung: Rung, _error: PrivysealError, _outcome: str) -> None:
        endured.recoveries[rung.value] += 1

    recovering = RecoveringToken(token, told=told)
    chosen = key(await recovering.keys())
    mechanism = mechanism_for(chosen.spki, "sha256")
    for number in range(1, count + 1):
        await _once(recovering, chosen, mechanism, endured)
        went(number)
    endured.logins, endured.workers = token.logins, token.starts
    return endured


async def _once(token: RecoveringToken, key: TokenKey, mechanism: Mechanism, endured: Endured) -> None:
    digest = secrets.token_bytes(DIGEST_SIZES[mechanism.digest_algorithm])
    loop = asyncio.get_running_loop()
    endured.asked += 1
    since_s = loop.time()
    try:
        signature = await token.sign(key_id=key.key_id, mechanism=mechanism, digest=digest)
    except TokenError as error:
        if token.pin_error is not None:
            raise
        endured.failures[f"{error.code} {error.function}".strip()] += 1
        return
    endured.seconds.append(loop.time() - since_s)
    try:
        verify_digest(key.spki, mechanism, digest, signature)
    except VerificationError:
        endured.wrong += 1
