# SPDX-License-Identifier: Apache-2.0
"""How long a card takes for a command, measured beside OpenSC through a real pcscd."""

import statistics
from collections.abc import Iterator

import pytest

from card_calls import RELEASE_ID
from lab.card_lab import CardLab, card_lab
from lab.piv.orders import Set
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.factory import open_token

pytestmark = pytest.mark.interop

GET_DATA = 0xCA


@pytest.fixture(scope="module")
def lab() -> Iterator[CardLab]:
    with card_lab() as opened:
        yield opened


async def test_each_round_trip_shows_a_relay_s_delay_and_the_token_signs_on(lab: CardLab) -> None:
    token = open_token(lab.config(environment=lab.locking_environment))
    try:
        await token.sign(key_id=RELEASE_ID, mechanism=Mechanism.RSA_SHA256, digest=bytes(32))
        near = await token.probe(16)
        lab.card.turn(Set(delays_ms={GET_DATA: 20}))
        far = await token.probe(16)
        assert near is not None
        assert far is not None
        assert (len(near), len(far)) == (16, 16)
        assert 19_000 < statistics.median(far) - statistics.median(near) < 30_000

        assert await token.sign(key_id=RELEASE_ID, mechanism=Mechanism.RSA_SHA256, digest=bytes(32))
    finally:
        await token.close()
