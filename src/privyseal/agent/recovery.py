# SPDX-License-Identifier: Apache-2.0
"""`RecoveringToken`: the Token port over one that fails, taking the steps of the recovery ladder (DESIGN §7).

A call that failed before C_Sign is made again after each step, until one succeeds or no step is left. What failed in
C_Sign is told at once, and never entered again here; the step that it calls for is taken before the next call.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

import structlog

from privyseal.agent.ladder import Climb, Rung, Tally, is_about_pin
from privyseal.errors import PrivysealError
from privyseal.pki.mechanism import Mechanism
from privyseal.ports.token import KeyCounter, ReaderUse, Secret, TokenInfo, TokenKey, UnlockableToken
from privyseal.wire.link import SIGN_BOUNDS_SECONDS

__all__ = ["Recoverable", "RecoveringToken", "Signing", "Step"]

_LOG: Final = structlog.get_logger("privyseal.agent.recovery")
T = TypeVar("T")
#: A step of the host's; it bounds its own time, and raises PrivysealError if it could not be taken.
Step = Callable[[], Awaitable[None]]
#: Told each step: the rung, the error that led to it, `done` or `failed`.
Told = Callable[[Rung, PrivysealError, str], Awaitable[None]]

#: After a session was closed some tokens are busy for a while (up to a second and more); each try waits longer.
_FIRST_PAUSE_SECONDS: Final = 0.05
_MAX_PAUSE_SECONDS: Final = 2.0
_CLIMB_SECONDS: Final = 300.0
#: Slow tokens take two seconds for RSA-4096.
_PATIENCE_SECONDS: Final = 5.0


class Recoverable(UnlockableToken, Protocol):
    """A token whose worker can be told to begin anew."""

    starts: int

    async def reinitialize(self) -> None:
        """C_Finalize and C_Initialize in the same worker."""
        ...

    async def adopt_pin(self, new: Secret) -> None:
        """Another worker has given the token this PIN: log in with it from now on."""
        ...


@dataclass(slots=True)
class Signing:
    """What a token has done since the agent was started.

    Attributes:
        counts: By class of duration, as `TokenHealth.sign_counts`.
        steps: Steps of the ladder that were taken.
    """

    signatures: int = 0
    failures: int = 0
    seconds: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(SIGN_BOUNDS_SECONDS) + 1))
    steps: Counter[Rung] = field(default_factory=Counter)

    def took(self, seconds: float) -> None:
        """A signature was made in this time."""
        self.signatures += 1
        self.seconds += seconds
        self.counts[bisect_left(SIGN_BOUNDS_SECONDS, seconds)] += 1

    def __add__(self, other: "Signing") -> "Signing":
        return Signing(
            signatures=self.signatures + other.signatures,
            failures=self.failures + other.failures,
            seconds=self.seconds + other.seconds,
            counts=[one + more for one, more in zip(self.counts, other.counts, strict=True)],
            steps=self.steps + other.steps,
        )


class RecoveringToken:
    """A token that comes back by itself."""

    def __init__(
        self,
        token: Recoverable,
        *,
        told: Told,
        steps: Mapping[Rung, Step] | None = None,
        tally: Tally | None = None,
        climb_seconds: float = _CLIMB_SECONDS,
        pause_seconds: float = _FIRST_PAUSE_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        """Recover a token.

        Args:
            token: The one that fails.
            told: Called after each step.
            steps: Those of the host that are configured: from `USB_RESET` on.
            tally: How often each step may be taken, shared with whoever else takes the same ones.
            climb_seconds: How long one call may go on climbing.
            pause_seconds: Before the first retry; doubled with each further one.
            patience_seconds: After so long a signature is said to make no headway.
        """
        self._token: Final = token
        self._told: Final = told
        self._steps: Final[dict[Rung, Step]] = {
            Rung.SESSION: _nothing,  # the driver has dropped a session that is not good
            Rung.MODULE: token.reinitialize,
            Rung.WORKER: token.recycle,
            **(steps or {}),
        }
        self._tally: Final = tally or Tally()
        self._climb_seconds: Final = climb_seconds
        self._pause_seconds: Final = pause_seconds
        self._patience_seconds: Final = patience_seconds
        self._owed: PrivysealError | None = None
        self._rests = False
        self._signed_s = 0.0
        #: Set when the newest signature has ended, with all that was done for it.
        self._last_sign = asyncio.Event()
        self._last_sign.set()
        self.signing: Final = Signing()
        #: The last failure that a person must look into before the PIN may be presented again.
        self.pin_error: PrivysealError | None = None
        #: Why it makes no headway now: it hangs, is being recovered, or has failed and nothing has worked since.
        self.trouble = ""
        #: Called when that has changed.
        self.trouble_changed: Callable[[], None] = _no_one

    @property
    def starts(self) -> int:
        """How often a worker was started."""
        return self._token.starts

    async def info(self) -> TokenInfo:
        """See `Token.info`."""
        return await self._recovering(self._token.info)

    async def glance(self) -> TokenInfo:
        """As `info`, without a single step of recovery: for a token that is probably not there."""
        return await self._token.info()

    @contextmanager
    def resting(self, *, when: bool = True) -> Iterator[None]:
        """Within this no step of recovery is taken (if `when`): for a token that could not be helped."""
        self._rests = when
        try:
            yield
        finally:
            self._rests = False

    async def keys(self) -> tuple[TokenKey, ...]:
        """See `Token.keys`."""
        keys = await self._recovering(self._token.keys)
        self.pin_error = None
        return keys

    async def counters(self) -> tuple[KeyCounter, ...]:
        """See `Token.counters`."""
        return await self._recovering(self._token.counters)

    async def reader_use(self) -> ReaderUse | None:
        """See `Token.reader_use`; nothing is recovered for the sake of a look."""
        return await self._token.reader_use()

    async def probe(self, count: int) -> tuple[int, ...] | None:
        """See `Token.probe`; nothing is recovered for the sake of a look."""
        return await self._token.probe(count)

    async def sign(self, *, key_id: bytes, mechanism: Mechanism, digest: bytes) -> bytes:
        """See `Token.sign`."""
        loop = asyncio.get_running_loop()

        async def once() -> bytes:
            since_s = loop.time()
            late = f"no signature in {self._patience_seconds:g} s"
            timer = loop.call_later(self._patience_seconds, self._say, late)
            try:
                signature = await self._token.sign(key_id=key_id, mechanism=mechanism, digest=digest)
            finally:
                timer.cancel()
            now_s = loop.time()
            self.signing.took(now_s - max(since_s, self._signed_s))  # before that it waited for another one
            self._signed_s = now_s
            return signature

        before, ended = self._last_sign, asyncio.Event()
        self._last_sign = ended
        try:
            return await self._recovering(once, behind=before)
        except PrivysealError:
            self.signing.failures += 1
            raise
        finally:
            ended.set()

    async def close(self) -> None:
        """See `Token.close`."""
        await self._token.close()

    async def recycle(self) -> None:
        """End the worker between two calls; the next call starts another, and finds out about the PIN anew."""
        self.pin_error = None
        await self._token.recycle()

    async def unlock(self, pin: bytes | bytearray | memoryview) -> None:
        """See `UnlockableToken.unlock`."""
        self.pin_error = None
        await self._token.unlock(pin)

    async def forget_pin(self) -> None:
        """See `UnlockableToken.forget_pin`."""
        self.pin_error = None
        await self._token.forget_pin()

    async def change_pin(self, new: Secret) -> None:
        """See `ManagedToken.change_pin`; made once, whatever becomes of it."""
        await self._token.change_pin(new)
        self.pin_error = None

    async def adopt_pin(self, new: Secret) -> None:
        """See `Recoverable.adopt_pin`."""
        self.pin_error = None
        await self._token.adopt_pin(new)

    async def step(self, rung: Rung, reason: PrivysealError) -> None:
        """Take one step because a person asks for it.

        Raises:
            PrivysealError: it could not be taken.
        """
        await self._take(rung, reason)

    @property
    def possible(self) -> frozenset[Rung]:
        """The rungs that this token has."""
        return frozenset(self._steps)

    async def _recovering(self, call: Callable[[], Awaitable[T]], *, behind: asyncio.Event | None = None) -> T:
        """Make a call, and again after each step.

        Args:
            call: The call.
            behind: Set when the call has ended that this one may have been sent ahead behind.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._climb_seconds
        climb = Climb(possible=self._steps.keys())
        pause_seconds = self._pause_seconds
        if self._owed is not None and not self._rests:
            climb = await self._pay(climb)
        while True:
            try:
                result = await call()
            except PrivysealError as error:
                if error.code == "token.skipped" and behind is not None:
                    await behind.wait()
                    climb = await self._pay(climb)  # what that one owes
                    continue
                if is_about_pin(error):
                    self.pin_error = error
                if getattr(error, "begun", False):
                    self._owed = error
                    self._say(str(error))
                    raise
                rung = None if self._rests else climb.next(error, self._tally, loop.time())
                if rung is None or loop.time() >= until_s:
                    raise
                climb = replace(climb, climbed=rung)
                if not await self._try(rung, error):
                    raise
            else:
                self._say("")
                return result
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _MAX_PAUSE_SECONDS)

    def _say(self, trouble: str) -> None:
        """Whether it makes headway."""
        if trouble != self.trouble:
            self.trouble = trouble
            self.trouble_changed()

    async def _pay(self, climb: Climb) -> Climb:
        """Take the first step that the last failure in C_Sign calls for."""
        error, self._owed = self._owed, None
        if error is None:
            return climb
        rung = climb.next(error, self._tally, asyncio.get_running_loop().time())
        if rung is None:
            return climb
        await self._try(rung, error)
        return replace(climb, climbed=rung)

    async def _try(self, rung: Rung, error: PrivysealError) -> bool:
        """Take a step; False if it shows that no step can help, as the device is not attached at all."""
        try:
            await self._take(rung, error)
        except PrivysealError as failure:
            _LOG.warning("recovery step failed", step=rung.value, code=failure.code, reason=failure.message)
            return failure.code != "usb.not_found"
        return True

    async def _take(self, rung: Rung, error: PrivysealError) -> None:
        if rung is not Rung.SESSION:
            self._say(str(error))
        self._tally.take(rung, asyncio.get_running_loop().time())
        self.signing.steps[rung] += 1
        _LOG.warning("recovery step", step=rung.value, code=error.code, reason=error.message)
        try:
            await self._steps[rung]()
        except PrivysealError:
            await self._told(rung, error, "failed")
            raise
        await self._told(rung, error, "done")


def _no_one() -> None:
    """Nobody wants to know."""


async def _nothing() -> None:
    """What is wanted has happened already."""
