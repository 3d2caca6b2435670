# SPDX-License-Identifier: Apache-2.0
"""A token in this process that signs when it is let, so that a test decides what happens while it is at an item."""

import asyncio

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import KeyCounter, ReaderUse, TokenInfo, TokenKey

__all__ = ["GatedToken"]


class GatedToken:
    """Begins whatever it is asked for, and ends it when the gate lets it.

    Attributes:
        begun: Digests, as C_Sign was called for them.
        gate: Each permit lets one signature through.
    """

    def __init__(self, *, open_for: int = 0) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.begun: asyncio.Queue[bytes] = asyncio.Queue()
        self.gate = asyncio.Semaphore(open_for)

    @property
    def spki(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        self.begun.put_nowait(digest)
        await self.gate.acquire()
        return self._key.sign(digest, ec.ECDSA(Prehashed(SHA256())))

    async def info(self) -> TokenInfo:
        raise NotImplementedError

    async def keys(self) -> tuple[TokenKey, ...]:
        raise NotImplementedError

    async def counters(self) -> tuple[KeyCounter, ...]:
        raise NotImplementedError

    async def reader_use(self) -> ReaderUse | None:
        raise NotImplementedError

    async def probe(self, count: int) -> tuple[int, ...] | None:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""
