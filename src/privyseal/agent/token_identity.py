# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a token, by what it is known again, and what is said of one that is not in use."""

import hashlib

import msgspec

from privyseal.agent.keys import SeenToken
from privyseal.errors import TokenError
from privyseal.ports.token import TokenKey

__all__ = ["Identity", "Memory", "away", "drained", "quarantined"]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """By what a token is known again.

    Attributes:
        keys: Of each signing key, SHA-256 of its SubjectPublicKeyInfo and of its certificate (empty if it has none).
    """

    serial: str
    keys: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, seen: SeenToken) -> "Identity":
        """That of a token that answers."""
        return cls(serial=seen.info.serial, keys=tuple(sorted(_key_identity(key) for key in seen.keys)))


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What of a token outlives the agent's process."""

    identity: Identity | None = None
    drained: bool = False


def _key_identity(key: TokenKey) -> tuple[str, str]:
    certificate = hashlib.sha256(key.certificates[0]).hexdigest() if key.certificates else ""
    return hashlib.sha256(key.spki).hexdigest(), certificate


def away(name: str) -> TokenError:
    """The problem of a token that was taken out and put back, until it was looked at."""
    return TokenError(
        "token.not_found",
        f"token {name!r} was taken out and put back",
        hint="it is looked at, and used again in a moment if it is the one that was here before",
    )


def drained(name: str) -> TokenError:
    """The problem of a token that a person took out of use."""
    return TokenError(
        "token.drained",
        f"token {name!r} was taken out of use by a person",
        hint=f"on the token's host: privyseal token resume {name} --dir DIR",
    )


def quarantined(name: str, code: str, seen: SeenToken) -> TokenError:
    """The problem of a token that is not the one that was here before; `code` says in what."""
    hint = f"if that is right, on the token's host: privyseal token resume {name} --dir DIR"
    if code == "token.other_serial":
        return TokenError(
            "token.other_serial",
            f"token {name!r} is in quarantine: another one came in its place (serial {seen.info.serial})",
            hint=hint,
        )
    return TokenError(
        "token.other_certificates",
        f"token {name!r} is in quarantine: it came back with other keys or certificates",
        hint=hint,
    )
