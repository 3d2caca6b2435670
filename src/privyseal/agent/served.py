# SPDX-License-Identifier: Apache-2.0
"""A key profile with the token that signs for it."""

from dataclasses import dataclass, field

from privyseal.agent.check import KeyProfile
from privyseal.agent.turns import Turns
from privyseal.ports.token import Token

__all__ = ["ServedKey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedKey:
    """A key profile with the token that signs for it.

    Attributes:
        turns: Of those who sign with the token; its profiles share them.
    """

    profile: KeyProfile
    token: Token
    key_id: bytes
    turns: Turns = field(default_factory=Turns)
