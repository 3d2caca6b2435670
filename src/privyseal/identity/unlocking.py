# SPDX-License-Identifier: Apache-2.0
"""A PIN on its way from a desk to an agent: sealed for one statement, which authority keys then sign."""

from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privyseal.identity.authority import Unlock
from privyseal.identity.sealing import open_sealed, seal_to
from privyseal.tlog.entry import canonical_json

__all__ = ["UNLOCK_MS", "open_unlock", "seal_unlock"]

#: How long an unlock, and the nonce in it, is good.
UNLOCK_MS: Final = 120_000


def seal_unlock(unlock: Unlock, pin: bytes | bytearray, sealing_key: bytes) -> Unlock:
    """The statement with the PIN in it, sealed to an agent's raw X25519 key.

    Raises:
        ConfigError: `key.text` if nothing can be sealed to that key.
    """
    return msgspec.structs.replace(unlock, sealed=seal_to(sealing_key, pin, _info(unlock)))


def open_unlock(unlock: Unlock, key: X25519PrivateKey) -> bytes:
    """The PIN.

    Raises:
        VerificationError: `sealed.closed` if it was sealed to another key, or for another statement.
    """
    return open_sealed(key, unlock.sealed, _info(unlock))


def _info(unlock: Unlock) -> bytes:
    """All that the statement says, so that a PIN cannot be moved into another one: hub, agent, serial, nonce, dates."""
    return b"privyseal token unlock v1\n" + canonical_json(msgspec.structs.replace(unlock, sealed=b""))
