# SPDX-License-Identifier: Apache-2.0
"""PINs that nobody types: of a length and of characters that the token takes, and never the same."""

import pytest

from privyseal.errors import TokenError
from privyseal.ports.token import PinState, TokenInfo
from privyseal.tokens.pin_making import make_pin


def token(least: int, most: int) -> TokenInfo:
    return TokenInfo(
        label="",
        serial="",
        manufacturer="",
        model="",
        hardware=True,
        pin_state=PinState.OK,
        min_pin_bytes=least,
        max_pin_bytes=most,
    )


@pytest.mark.parametrize(
    ("least", "most", "asked", "length"),
    [(4, 255, 0, 32), (4, 8, 0, 8), (4, 16, 10, 10), (40, 64, 0, 40), (4, 255, 255, 255), (6, 6, 0, 6)],
)
def test_the_length_fits_the_token(least: int, most: int, asked: int, length: int) -> None:
    assert len(make_pin(token(least, most), length=asked, digits=False)) == length


@pytest.mark.parametrize(("least", "most", "asked"), [(4, 8, 9), (8, 16, 7), (4, 4, 0), (1, 255, 5), (1, 255, 256)])
def test_a_length_that_does_not_fit_is_refused(least: int, most: int, asked: int) -> None:
    with pytest.raises(TokenError) as caught:
        make_pin(token(least, most), length=asked, digits=False)
    assert caught.value.code == "token.pin_length"


def test_digits_are_digits_and_letters_do_not_look_alike() -> None:
    digits = {bytes(make_pin(token(4, 255), length=64, digits=True).view) for _ in range(50)}
    letters = {bytes(make_pin(token(4, 255), length=64, digits=False).view) for _ in range(50)}

    assert len(digits) == len(letters) == 50
    assert {byte for pin in digits for byte in pin} == set(b"0123456789")
    seen = {byte for pin in letters for byte in pin}
    assert len(seen) > 50
    assert not seen & set(b"01lIO")
