# SPDX-License-Identifier: Apache-2.0
"""No signed request is taken twice while its signature lives, and the memory of that stays bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import IdentityError, UnavailableError
from privyseal.hub.nonces import Nonces
from privyseal.wire.http_signature import LIFE_SECONDS

KEY, OTHER = b"k" * 32, b"o" * 32


@given(st.lists(st.tuples(st.floats(0, 90), st.integers(0, 5)), max_size=40))
def test_none_is_taken_twice_while_its_signature_lives(steps: list[tuple[float, int]]) -> None:
    nonces, now_s, taken_s = Nonces(), 1000.0, dict[int, float]()
    for pause, number in steps:
        now_s += pause
        try:
            nonces.take(KEY, bytes([number]) * 16, now_s)
        except IdentityError:
            assert number in taken_s
        else:
            assert now_s - taken_s.get(number, -1000.0) > 2 * LIFE_SECONDS
            taken_s[number] = now_s


def test_clients_do_not_share_them() -> None:
    nonces = Nonces()

    nonces.take(KEY, b"n" * 16, 1.0)
    nonces.take(OTHER, b"n" * 16, 1.0)

    with pytest.raises(IdentityError, match=r"proof\.replayed"):
        nonces.take(KEY, b"n" * 16, 2.0)


def test_the_memory_is_bounded_for_each_client() -> None:
    nonces = Nonces(most=3)
    for number in range(3):
        nonces.take(KEY, bytes([number]) * 16, 1000.0)

    with pytest.raises(UnavailableError) as caught:
        nonces.take(KEY, b"\xff" * 16, 1010.0)

    assert caught.value.code == "proof.too_many"
    assert caught.value.retry_after_seconds == 2 * LIFE_SECONDS + 1 - 10
    nonces.take(OTHER, b"\xff" * 16, 1010.0)
    for moment_s in (1200.0, 1400.0, 1600.0):
        nonces.take(KEY, b"\xff" * 16, moment_s + 0.0) if moment_s != 1400.0 else None
    assert sum(map(len, (*nonces._new.values(), *nonces._old.values()))) <= 3
