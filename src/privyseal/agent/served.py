# SPDX-License-Identifier: Apache-2.0
"""A key profile with the token that signs for it."""

import asyncio
from dataclasses import dataclass, field

from privyseal.agent.check import KeyProfile
from privyseal.ports.token import Token

__all__ = ["ServedKey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedKey:
    """A key profile with the token that signs for it.

    Attributes:
        turn: Held while the token signs for this profile; profiles of one token share it. It lets in as many as the
            token has workers.
    """

    profile: KeyProfile
    token: Token
    key_id: bytes
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    workers: int = 1
