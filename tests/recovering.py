# SPDX-License-Identifier: Apache-2.0
"""A token of SoftHSM2 behind the fault shim that recovers by itself, and what it did for that."""

from dataclasses import dataclass, field

import pytest

from lab.fault_shim import FaultyToken
from privyseal.agent.ladder import BOUNDS, Bound, Rung, Tally
from privyseal.agent.recovery import RecoveringToken, Step
from privyseal.errors import PrivysealError, TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin_journal import PinJournal
from softhsm import EC_ID

__all__ = ["DIGEST", "FREE", "Lab", "open_lab"]

DIGEST = bytes(range(32))
#: Steps as often as a test likes.
FREE = {rung: Bound(count=10_000, seconds=60.0) for rung in BOUNDS}


@dataclass(kw_only=True)
class Lab:
    """A token that recovers, and what it did for that."""

    faulty: FaultyToken
    token: RecoveringToken
    steps: list[tuple[str, str, str]] = field(default_factory=list)

    async def sign(self) -> bytes:
        return await self.token.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=DIGEST)

    async def refused(self) -> TokenError:
        with pytest.raises(TokenError) as caught:
            await self.sign()
        return caught.value

    async def unblock(self) -> None:
        """A person looks into the PIN."""
        with self.token.resting():
            PinJournal(str(self.faulty.hsm.journal)).clear((await self.token.info()).serial)

    @property
    def taken(self) -> list[str]:
        return [step for step, _, _ in self.steps]


def open_lab(
    faulty: FaultyToken,
    tally: Tally | None = None,
    *,
    call_seconds: float = 3.0,
    sign_seconds: float = 0.5,
    patience_seconds: float = 60.0,
    **steps: Step,
) -> Lab:
    found: list[tuple[str, str, str]] = []

    async def told(rung: Rung, error: PrivysealError, outcome: str) -> None:
        found.append((rung.value, error.code, outcome))

    token = RecoveringToken(
        open_token(faulty.config(call_seconds=call_seconds, sign_seconds=sign_seconds, close_seconds=0.5)),
        told=told,
        steps={Rung[name]: step for name, step in steps.items()},
        tally=tally or Tally(FREE),
        pause_seconds=0.001,
        patience_seconds=patience_seconds,
    )
    return Lab(faulty=faulty, token=token, steps=found)
