# SPDX-License-Identifier: Apache-2.0
"""`WorkerToken`: the Token port over a worker process, started when needed and replaced when it fails."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Literal, TypeVar

import msgspec

from privyseal.errors import MalformedInputError, TokenError
from privyseal.pki.mechanism import DIGEST_SIZES, Mechanism
from privyseal.ports.token import KeyCounter, KeyKind, ReaderUse, Secret, TokenInfo, TokenKey
from privyseal.tokens import frames
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.process import WorkerProcess

__all__ = ["WorkerToken"]

T = TypeVar("T")
AnswerT = TypeVar(
    "AnswerT",
    frames.InfoAnswer,
    frames.KeysAnswer,
    frames.SignAnswer,
    frames.GenerateAnswer,
    frames.CountersAnswer,
    frames.ReaderUseAnswer,
    frames.ProbeAnswer,
    frames.Done,
)

#: After these the worker is in a state that nobody knows, or gone.
_FATAL_CODES: Final = frozenset({"token.timeout", "token.crashed", "token.protocol"})


class _Turn(asyncio.Lock):
    """A lock that knows how many wait for it."""

    waiting = 0

    async def acquire(self) -> Literal[True]:
        self.waiting += 1
        try:
            return await super().acquire()
        finally:
            self.waiting -= 1


class WorkerToken:
    """A token (see `privyseal.ports.token.ManagedToken`) whose driver lives in a worker process.

    Calls run one at a time, in order; one signature may wait at the worker while another is made. A caller that is
    cancelled leaves its call running: ending a login half-way would make its outcome unknown. The worker is started
    by the first call, and again, not more often than the configuration allows, by the first call after it failed.

    Args:
        config: What token it is.
        pin: A PIN that a person typed; from then on owned, and wiped by `close`.
    """

    def __init__(self, config: TokenConfig, *, pin: PinBuffer | None = None) -> None:
        self.config = config
        self._pin = pin
        self._turn: Final = _Turn()
        self._worker: WorkerProcess | None = None
        self._is_signing = False
        self._started_s: float | None = None
        #: How often a worker was started, and how often one entered C_Login.
        self.starts = 0
        self._past_logins = 0
        self._is_closed = False
        #: Calls in progress or waiting, so that none is lost to the garbage collector when its caller is
        #: cancelled.
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def logins(self) -> int:
        """How often a PIN was presented."""
        return self._past_logins + (0 if self._worker is None else self._worker.logins)

    async def info(self) -> TokenInfo:
        """See `Token.info`."""
        return (await self._exchange(frames.InfoCall(), frames.InfoAnswer)).info

    async def keys(self) -> tuple[TokenKey, ...]:
        """See `Token.keys`."""
        return (await self._exchange(frames.KeysCall(), frames.KeysAnswer)).keys

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        """See `Token.sign`.

        Raises:
            MalformedInputError: `digest.size` if the digest is not as long as the mechanism's digests are.
        """
        expected = DIGEST_SIZES[mechanism.digest_algorithm]
        if len(digest) != expected:
            raise MalformedInputError(
                "digest.size", f"{mechanism.value} signs a digest of {expected} bytes, not of {len(digest)}"
            )
        call = frames.SignCall(key_id=key_id, mechanism=mechanism, digest=digest)
        answer = await self._shielded(self._sign(call))
        if isinstance(answer, frames.Skipped):
            raise self._skipped()
        if not isinstance(answer, frames.SignAnswer):
            raise self._out_of_step()
        return answer.signature

    async def generate_key(self, *, kind: KeyKind, key_id: bytes, label: str) -> TokenKey:
        """See `ManagedToken.generate_key`."""
        call = frames.GenerateCall(kind=kind, key_id=key_id, label=label)
        return (await self._exchange(call, frames.GenerateAnswer)).key

    async def store_certificates(self, *, key_id: bytes, chain: tuple[bytes, ...]) -> None:
        """See `ManagedToken.store_certificates`."""
        await self._exchange(frames.StoreCall(key_id=key_id, chain=chain), frames.Done)

    async def counters(self) -> tuple[KeyCounter, ...]:
        """See `Token.counters`."""
        return (await self._exchange(frames.CountersCall(), frames.CountersAnswer)).counters

    async def reader_use(self) -> ReaderUse | None:
        """See `Token.reader_use`."""
        return (await self._exchange(frames.ReaderUseCall(), frames.ReaderUseAnswer)).use

    async def probe(self, count: int) -> tuple[int, ...] | None:
        """See `Token.probe`."""
        return (await self._exchange(frames.ProbeCall(count=count), frames.ProbeAnswer)).round_trips_us

    async def change_pin(self, new: Secret) -> None:
        """See `ManagedToken.change_pin`."""
        pin = PinBuffer()
        pin.fill(new.view)
        await self._shielded(self._change_pin(pin))

    async def unlock(self, pin: bytes | bytearray | memoryview) -> None:
        """Hand in a PIN that a person typed, in place of any other; it is presented when next needed.

        The PIN journal still decides whether it may be: a person who vouches for it clears the journal as
        well.

        Raises:
            TokenError: `token.pin_missing` or `token.pin_file` if it cannot be a PIN.
        """
        fresh = PinBuffer()
        fresh.fill(pin)
        self._hold(fresh)
        await self.recycle()

    async def forget_pin(self) -> None:
        """Go by the configured source again, not by a PIN that was handed in."""
        self._hold(None)
        await self.recycle()

    async def adopt_pin(self, new: Secret) -> None:
        """Another worker has given the token this PIN: log in with it from now on."""
        pin = PinBuffer()
        pin.fill(new.view)
        self._hold_new(pin)
        await self.recycle()

    def _hold(self, pin: PinBuffer | None) -> None:
        old, self._pin = self._pin, pin
        if old is not None:
            old.wipe()

    async def reinitialize(self) -> None:
        """Have the module forget everything (C_Finalize, C_Initialize), in the same worker.

        Raises:
            TokenError: as `Token.info`.
        """
        await self._exchange(frames.ReinitializeCall(), frames.Done)

    async def recycle(self) -> None:
        """End the worker between two calls; the next call starts another."""
        await self._shielded(self._recycle())

    async def close(self) -> None:
        """See `Token.close`. A call in progress has `close_seconds` to end; calls that wait are refused."""
        self._is_closed = True
        if not await self._has_turn(self.config.close_seconds):
            if self._worker is not None:
                await self._worker.kill()
            # The killed call gives its turn back, unless its process is stuck inside the kernel: then it is
            # left.
            if not await self._has_turn(self.config.close_seconds):
                return
        try:
            await self._end_worker()
        finally:
            self._turn.release()
        if self._pin is not None:
            self._pin.wipe()
            self._pin = None

    async def _has_turn(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._turn.acquire()
        except TimeoutError:
            return False

    async def _exchange(self, call: frames.Call, kind: type[AnswerT]) -> AnswerT:
        answer = await self._shielded(self._call(call))
        if not isinstance(answer, kind):
            raise self._out_of_step()
        return answer

    def _out_of_step(self) -> TokenError:
        return TokenError("token.protocol", f"token {self.config.name!r}: the worker answered something else")

    def _skipped(self) -> TokenError:
        return TokenError(
            "token.skipped",
            f"token {self.config.name!r}: the call before this one failed, and this one was not begun",
            hint="call again",
        )

    async def _shielded(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Retrieved here as well, as its caller may have gone.
            task.exception()

    async def _change_pin(self, new: PinBuffer) -> None:
        try:
            answer = await self._call(frames.ChangePinCall(pin_bytes=len(new)), new)
            if not isinstance(answer, frames.Done):
                raise self._out_of_step()
            self._hold_new(new.copy())
        finally:
            new.wipe()

    def _hold_new(self, pin: PinBuffer) -> None:
        """Hold a PIN that the token has from now on, unless it is in a file."""
        if self._pin is not None or not self.config.pin_file:
            self._hold(pin)
        else:
            pin.wipe()

    async def _call(self, call: frames.Call, pin: PinBuffer | None = None) -> frames.Answer:
        async with self._turn:
            return await self._ask(await self._live_worker(), call, pin)

    async def _sign(self, call: frames.SignCall) -> frames.Answer:
        """A signature. While another one is made the call is sent ahead, so that the worker has it when it is free."""
        ahead = self._worker if self._is_signing and not self._turn.waiting else None
        if ahead is None:
            return await self._call(call)
        ahead.send_ahead(msgspec.structs.replace(call, ahead=True))
        async with self._turn:
            if ahead is self._worker:
                return await self._ask(ahead, call, was_sent=True)
            if not await ahead.began_behind():
                raise self._skipped()
            raise TokenError(
                "token.crashed",
                f"token {self.config.name!r}: the worker process was ended in C_Sign, for the call before this one",
                function="C_Sign",
                begun=True,
            )

    async def _ask(
        self, worker: WorkerProcess, call: frames.Call, pin: PinBuffer | None = None, *, was_sent: bool = False
    ) -> frames.Answer:
        config = self.config
        long_seconds = config.generate_seconds if isinstance(call, frames.GenerateCall) else config.sign_seconds
        self._is_signing = isinstance(call, frames.SignCall)
        try:
            return await worker.ask(
                call, call_seconds=config.call_seconds, sign_seconds=long_seconds, pin=pin, was_sent=was_sent
            )
        except TokenError as error:
            if error.code in _FATAL_CODES:
                await self._discard(worker)
            raise
        except asyncio.CancelledError:
            # Callers cannot cancel this; the event loop is being shut down.
            await self._discard(worker)
            raise
        finally:
            self._is_signing = False

    async def _recycle(self) -> None:
        async with self._turn:
            await self._end_worker()

    async def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            self._past_logins += worker.logins
            await worker.close(self.config.close_seconds)

    async def _live_worker(self) -> WorkerProcess:
        if self._is_closed:
            raise TokenError("token.closed", f"token {self.config.name!r} was closed")
        if self._worker is not None and self._worker.is_alive:
            return self._worker
        now_s = asyncio.get_running_loop().time()
        if self._started_s is not None:
            await asyncio.sleep(max(0.0, self._started_s + self.config.respawn_seconds - now_s))
        self._started_s = asyncio.get_running_loop().time()
        self.starts += 1
        # Known from its first moment, so that `close` can end it while it loads.
        self._worker = worker = await WorkerProcess.spawn(self.config.name, self.config.environment)
        try:
            await worker.open(self.config, self._pin)
        except (TokenError, asyncio.CancelledError):
            await self._discard(worker)
            raise
        return worker

    async def _discard(self, worker: WorkerProcess) -> None:
        self._worker = None
        self._past_logins += worker.logins
        await worker.kill()
