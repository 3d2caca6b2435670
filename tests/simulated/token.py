# SPDX-License-Identifier: Apache-2.0
"""A token with a use counter of its own: what it says nobody can change, so that it judges everybody else."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import KeyCounter, ReaderUse, TokenInfo, TokenKey
from simulated.chaos import Chaos
from simulated.loop import Killed, Process, SimLoop

__all__ = ["Device", "SimToken"]

_CKR_DEVICE_ERROR = 0x30
_DEADLINE_SECONDS = 60.0


@dataclass(kw_only=True)
class Device:
    """The token itself. `used` is called at the moment of each use, with digest and signature."""

    key: ec.EllipticCurvePrivateKey
    used: Callable[[bytes, bytes], None]

    def use(self, digest: bytes) -> bytes:
        """C_Sign."""
        signature = self.key.sign(digest, ec.ECDSA(Prehashed(SHA256())))
        self.used(digest, signature)
        return signature


class SimToken:
    """One agent process's access to the device."""

    def __init__(self, device: Device, loop: SimLoop, chaos: Chaos, process: Process) -> None:
        self._device = device
        self._loop = loop
        self._chaos = chaos
        self._process = process
        self._at_work: bytes | None = None
        process.at_death.append(self._crash)

    def _crash(self) -> None:
        # The device knows nothing of its host's fate: what it was at, it may finish.
        if self._at_work is not None and self._loop.choice.random() < 0.5:
            self._device.use(self._at_work)

    def _point(self, name: str) -> None:
        if self._chaos.strikes("agent killed at a step"):
            self._chaos.struck.append(f"({name})")
            self._process.kill()
            raise Killed

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        self._point("before C_Sign")
        await asyncio.sleep(self._loop.short_delay())
        if self._chaos.strikes("token fails before C_Sign"):
            raise TokenError("token.not_found", "pulled out")
        self._at_work = digest
        try:
            return await self._work(digest)
        finally:
            self._at_work = None

    async def _work(self, digest: bytes) -> bytes:
        hangs = self._chaos.strikes("token hangs")
        await asyncio.sleep(_DEADLINE_SECONDS if hangs else self._loop.short_delay())
        if self._chaos.strikes("token fails in C_Sign"):
            raise TokenError("token.failed", "device error", ckr=_CKR_DEVICE_ERROR, function="C_Sign", begun=True)
        if hangs or self._chaos.strikes("token outcome unknown"):
            if self._loop.choice.random() < 0.5:
                self._device.use(digest)
            raise TokenError("token.timeout", "no answer in time", begun=True)
        signature = self._device.use(digest)
        self._at_work = None
        self._point("after C_Sign")
        await asyncio.sleep(self._loop.short_delay())
        return signature

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
