# SPDX-License-Identifier: Apache-2.0
"""A random PIN, made in locked memory."""

import secrets
from typing import Final

from privyseal.errors import TokenError
from privyseal.ports.token import TokenInfo
from privyseal.tokens.pin import MAX_PIN_BYTES, PinBuffer
from privyseal.tokens.token_objects import check_new_pin

__all__ = ["make_pin"]

#: Without what looks alike, for the day on which a person types the recovered PIN.
_LETTERS: Final = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS: Final = b"0123456789"
#: 32 letters hold 186 bits; a token that allows fewer locks itself after a few attempts.
_BYTES: Final = 32
#: What six digits hold is the least that cards go by.
_LEAST_BYTES: Final = 6


def make_pin(token: TokenInfo, *, length: int, digits: bool) -> PinBuffer:
    """A PIN for a token.

    Args:
        token: What it says of the lengths that it takes.
        length: In bytes; 0 for 32, or as many as the token takes.
        digits: Of digits alone.

    Raises:
        TokenError: `token.pin_length` if the token takes none of this length, or it is below 6.
    """
    wanted = length or max(min(_BYTES, token.max_pin_bytes), token.min_pin_bytes)
    if not _LEAST_BYTES <= wanted <= MAX_PIN_BYTES:
        raise TokenError(
            "token.pin_length", f"a PIN that is made has {_LEAST_BYTES} to {MAX_PIN_BYTES} bytes, not {wanted}"
        )
    alphabet = _DIGITS if digits else _LETTERS
    made = bytearray(secrets.choice(alphabet) for _ in range(wanted))
    pin = PinBuffer()
    try:
        pin.fill(made)
        check_new_pin(pin, token.min_pin_bytes, token.max_pin_bytes)
    except TokenError:
        pin.wipe()
        raise
    finally:
        made[:] = bytes(len(made))
    return pin
