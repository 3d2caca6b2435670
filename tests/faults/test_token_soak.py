# SPDX-License-Identifier: Apache-2.0
"""Many signatures on a token that fails now and then: none lost, none made twice, and the checker would see it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from lab.shim_orders import at, crashes_after
from lab.soak import discrepancies, soak, soak_orders
from privyseal.agent.ladder import Bound, Rung, Tally, is_unknown
from privyseal.agent.recovery import RecoveringToken
from privyseal.errors import PrivysealError, TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.factory import open_token
from privyseal.tokens.supervisor import WorkerToken
from softhsm import EC_ID, fresh_softhsm

SIGNATURES = 2000
SEED = 20_261_125


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


def config(faulty: FaultyToken) -> TokenConfig:
    return faulty.config(call_seconds=0.8, sign_seconds=0.5)


@pytest.fixture
async def token(faulty: FaultyToken) -> AsyncIterator[WorkerToken]:
    opened = open_token(config(faulty))
    yield opened
    faulty.heal()
    await opened.close()


async def public_key(token: WorkerToken) -> bytes:
    return next(key.spki for key in await token.keys() if key.key_id == EC_ID)


async def test_among_faults_of_all_kinds_the_callers_account_is_the_tokens(
    faulty: FaultyToken, token: WorkerToken
) -> None:
    spki = await public_key(token)
    faulty.break_with(*soak_orders(percent=1, seed=SEED))

    tally = await soak(token, key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, signatures=SIGNATURES, callers=3)

    assert discrepancies(tally, faulty, signatures=SIGNATURES, spki=spki, mechanism=Mechanism.ECDSA_SHA256) == []
    assert tally.begun, "the faults were there"
    assert tally.unbegun.total() > len(tally.begun)
    assert len(tally.signatures) >= 0.97 * SIGNATURES


async def test_a_recovering_token_leaves_nothing_to_its_callers(faulty: FaultyToken) -> None:
    """What failed before it began is made up for inside; only what began and has no outcome is told."""
    steps: list[Rung] = []

    async def told(rung: Rung, _error: PrivysealError, _outcome: str) -> None:
        steps.append(rung)

    free = {rung: Bound(count=100_000, seconds=60.0) for rung in Rung}
    token = RecoveringToken(open_token(config(faulty)), told=told, tally=Tally(free), pause_seconds=0.001)
    spki = next(key.spki for key in await token.keys() if key.key_id == EC_ID)
    faulty.break_with(*soak_orders(percent=1, seed=SEED))

    tally = await soak(token, key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, signatures=SIGNATURES, callers=3)

    faulty.heal()
    await token.close()
    assert discrepancies(tally, faulty, signatures=SIGNATURES, spki=spki, mechanism=Mechanism.ECDSA_SHA256) == []
    assert len(tally.signatures) + len(tally.begun) == SIGNATURES
    assert tally.begun, "the faults were there"
    assert all(is_unknown(error) for error in tally.begun.values()), "the hub may repeat each of them, once"
    assert not tally.refused
    assert {Rung.SESSION, Rung.WORKER} <= set(steps)


class Careless(WorkerToken):
    """Tries again whatever failed."""

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        try:
            return await super().sign(key_id=key_id, mechanism=mechanism, digest=digest)
        except TokenError:
            return await super().sign(key_id=key_id, mechanism=mechanism, digest=digest)


class Forgetful(WorkerToken):
    """Calls everything unbegun."""

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        try:
            return await super().sign(key_id=key_id, mechanism=mechanism, digest=digest)
        except TokenError as error:
            error.begun = False
            raise


class Anxious(WorkerToken):
    """Calls everything begun."""

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        try:
            return await super().sign(key_id=key_id, mechanism=mechanism, digest=digest)
        except TokenError as error:
            error.begun = True
            raise


class Stale(WorkerToken):
    """Hands out the first signature for all of them."""

    kept = b""

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        self.kept = self.kept or await super().sign(key_id=key_id, mechanism=mechanism, digest=digest)
        return self.kept


@pytest.mark.parametrize(
    ("kind", "function", "found"),
    [
        (WorkerToken, "C_Sign", []),
        (Careless, "C_Sign", ["was begun 2 times"]),
        (Forgetful, "C_Sign", ["was begun 2 times"]),
        (Anxious, "C_SignInit", ["was called begun and never was"]),
        (
            Stale,
            "C_Finalize",
            ["was handed out and never begun", "was handed out and never signed", "has a bad signature"],
        ),
    ],
)
async def test_a_token_that_is_wrong_about_what_began_does_not_pass(
    faulty: FaultyToken, kind: type[WorkerToken], function: str, found: list[str]
) -> None:
    token = kind(config(faulty))
    spki = await public_key(token)
    faulty.break_with(crashes_after(function, at(2)))

    tally = await soak(token, key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, signatures=2)
    await token.close()

    differences = discrepancies(tally, faulty, signatures=2, spki=spki, mechanism=Mechanism.ECDSA_SHA256)
    assert len(differences) == len(found)
    assert all(words in difference for words, difference in zip(found, differences, strict=True)), differences
