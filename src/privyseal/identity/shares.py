# SPDX-License-Identifier: Apache-2.0
"""Splitting a secret into n shares of which any m give it back, and fewer say nothing (Shamir, over GF(2^8)).

Each byte is the constant term of a random polynomial of degree m - 1; share x is its value at x. The field is that of
AES (x^8 + x^4 + x^3 + x + 1).
"""

import secrets
from typing import Final

from privyseal.errors import ConfigError

__all__ = ["MAX_SHARES", "combine", "split"]

MAX_SHARES: Final = 16
_REDUCTION: Final = 0x11B


def split(secret: bytes, *, threshold: int, count: int) -> tuple[bytes, ...]:
    """Shares 1 to `count`, each as long as the secret.

    Raises:
        ConfigError: `shares.count` unless 1 <= threshold <= count <= 16.
    """
    if not 1 <= threshold <= count <= MAX_SHARES:
        raise ConfigError(
            "shares.count",
            f"{threshold} of {count} keys cannot be needed",
            hint=f"name 1 to {MAX_SHARES} keys, and no more as the threshold",
        )
    higher = [secrets.token_bytes(len(secret)) for _ in range(threshold - 1)]
    return tuple(_evaluate((secret, *higher), x) for x in range(1, count + 1))


def combine(shares: dict[int, bytes]) -> bytes:
    """The secret from exactly as many shares, by their numbers, as the threshold was.

    What comes of other ones, too few, or changed ones, is another secret: whoever uses it must be able to tell.
    """
    length = min(len(share) for share in shares.values())
    weights = {x: _weight(x, tuple(shares)) for x in shares}
    secret = bytearray(length)
    for x, share in shares.items():
        for place in range(length):
            secret[place] ^= _multiply(share[place], weights[x])
    return bytes(secret)


def _evaluate(coefficients: tuple[bytes, ...], x: int) -> bytes:
    value = bytearray(len(coefficients[0]))
    for coefficient in reversed(coefficients):
        for place, byte in enumerate(coefficient):
            value[place] = _multiply(value[place], x) ^ byte
    return bytes(value)


def _weight(x: int, points: tuple[int, ...]) -> int:
    """Lagrange's coefficient of point x, at zero."""
    weight = 1
    for other in points:
        if other != x:
            weight = _multiply(weight, _multiply(other, _inverse(other ^ x)))
    return weight


def _multiply(a: int, b: int) -> int:
    """In the field, without a branch or table that depends on the values."""
    product = 0
    for _ in range(8):
        product ^= a & -(b & 1)
        a = (a << 1) ^ (_REDUCTION & -(a >> 7))
        b >>= 1
    return product


def _inverse(a: int) -> int:
    """a^254, as the group has 255 elements."""
    result = 1
    for _ in range(254):
        result = _multiply(result, a)
    return result
