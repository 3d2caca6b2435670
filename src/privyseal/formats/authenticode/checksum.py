# SPDX-License-Identifier: Apache-2.0
"""The CheckSum of a PE image: a one's complement sum of its 16-bit words, plus its length (PE Format).

2^16 is 1 modulo 0xffff, so the number that a block of little-endian words makes has the same remainder as the
sum of its words. Blocks are therefore added as whole integers, and reduced once.
"""

from typing import Final

__all__ = ["checksum_of", "fold", "word_sum"]

_MODULUS: Final = 0xFFFF


def word_sum(block: bytes | memoryview) -> int:
    """A number congruent to the sum of the block's words; the block must start at an even offset of the file.

    An odd last byte counts as a word with a zero behind it.
    """
    return int.from_bytes(block, "little")


def fold(total: int) -> int:
    """A small number with the same remainder; zero only for zero."""
    return total % _MODULUS or (_MODULUS if total else 0)


def checksum_of(total: int, size_bytes: int) -> int:
    """The CheckSum field of a file of that size.

    Args:
        total: The `word_sum` of all of it, with the field itself taken as zero.
        size_bytes: Length of the file.
    """
    # A sum that is not zero never folds to zero, but to the other zero of one's complement.
    return (fold(total) + size_bytes) & 0xFFFFFFFF
