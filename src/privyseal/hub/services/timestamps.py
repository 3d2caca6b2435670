# SPDX-License-Identifier: Apache-2.0
"""The timestamp broker: forwards a client's question to the hub's TSAs, checks the answer, and records it.

Who is asked when is decided in `tsa_choice`. The client checks everything again, and the path to a trusted root, which
is its own matter, for the first time.
"""

import asyncio
import datetime as dt
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

from privyseal.errors import (
    ConfigError,
    DeniedError,
    MalformedInputError,
    PrivysealError,
    UnavailableError,
    UnsupportedInputError,
)
from privyseal.hub.config import TsaTable
from privyseal.hub.entries import timestamp_entry
from privyseal.hub.services.denials import Denials
from privyseal.hub.services.tsa_choice import (
    Tsa,
    answered,
    asked,
    failed,
    may_ask,
    outrun,
    ranked,
    state_of,
    until_next_ms,
)
from privyseal.pki import tsp
from privyseal.pki.mechanism import DIGEST_SIZES
from privyseal.pki.tsp_check import FreshToken, check_response
from privyseal.ports.clock import Clock
from privyseal.ports.store import Enrolment, Store, Tx
from privyseal.tlog.entry import encode_entry
from privyseal.wire.api import TimestampView, TsaStatus
from privyseal.wire.tsa import BusyError

__all__ = ["AskTsa", "Timestamps"]

_HEDGE_MS: Final = 2_000
_TOTAL_SECONDS: Final = 30.0
_MAX_REQUEST_BYTES: Final = 4096
_NONCE_LIMIT: Final = 1 << 64

#: (url, TimeStampReq) -> TimeStampResp; raises MalformedInputError, UnsupportedInputError, UnavailableError.
AskTsa = Callable[[str, bytes], Awaitable[bytes]]


def _ticks() -> int:
    return time.monotonic_ns() // 1_000_000


class Timestamps:
    """Asks TSAs for clients. What it learns of them lasts as long as the process."""

    def __init__(
        self,
        *,
        store: Store,
        denials: Denials,
        tables: tuple[TsaTable, ...],
        ask: AskTsa,
        clock: Clock,
        ticks: Clock = _ticks,
        hedge_ms: int = _HEDGE_MS,
        total_seconds: float = _TOTAL_SECONDS,
    ) -> None:
        """Take what it works with.

        Args:
            store: Where the log is.
            denials: Puts refusals there.
            tables: The TSAs, in the order of preference.
            ask: The way to them.
            clock: This machine's time, against which genTime is held.
            ticks: Milliseconds that never go back, for budgets and pauses.
            hedge_ms: After which time an answer is slow.
            total_seconds: For one timestamp.
        """
        self._store = store
        self._denials = denials
        self._ask = ask
        self._clock = clock
        self._ticks = ticks
        self._hedge_ms = hedge_ms
        self._total_seconds = total_seconds
        self._tsas = {table.url: Tsa(url=table.url, per_minute=table.per_minute) for table in tables}

    def status(self) -> tuple[TsaStatus, ...]:
        """What is known of each TSA, in the configured order."""
        now_ms = self._ticks()
        return tuple(
            TsaStatus(url=tsa.url, state=state_of(tsa, now_ms), problem=tsa.problem) for tsa in self._tsas.values()
        )

    async def create(self, caller: Enrolment, encoded: bytes) -> TimestampView:
        """Get a timestamp; its entry is durable before this returns.

        Raises:
            ConfigError: `tsa.none` if hub.toml names no TSA.
            MalformedInputError: `der.*`, `tsp.digest_algorithm`, `tsp.request`.
            DeniedError: `timestamp.denied`, after a `deny` entry, for a client that may use no key profile.
            UnavailableError: `tsa.none_gave` if trying later may help, also `tsa.slow`; else
            UnsupportedInputError: `tsa.none_will`. Both name each TSA and why.
        """
        self._ensure_tsas()
        request = _checked(encoded)
        response, fresh = await self._ask_for(caller, encoded, request)

        async def write(tx: Tx) -> int:
            return await tx.append(encode_entry(timestamp_entry(caller, fresh, await tx.now_ms())))

        return TimestampView(response=response, index=await self._store.write(write))

    async def fetch(self, caller: Enrolment | None, request: tsp.TimeStampReq) -> FreshToken:
        """Get a timestamp for the hub's own use; whoever calls records it.

        Args:
            caller: The client on whose behalf; None for nobody's.
            request: What is asked.

        Raises:
            ConfigError, DeniedError, UnavailableError, UnsupportedInputError: as `create`.
        """
        self._ensure_tsas()
        _, fresh = await self._ask_for(caller, tsp.encode_request(request), request)
        return fresh

    def _ensure_tsas(self) -> None:
        if not self._tsas:
            raise ConfigError(
                "tsa.none",
                "this hub knows no TSA",
                hint='name some under [[tsa]] in hub.toml, or set timestamp_via = "direct" in client.toml',
            )

    async def _ask_for(
        self, caller: Enrolment | None, encoded: bytes, request: tsp.TimeStampReq
    ) -> tuple[bytes, FreshToken]:
        if caller is not None and not caller.profiles:
            await self._deny(caller, encoded)
        try:
            async with asyncio.timeout(self._total_seconds):
                return await self._first_good(encoded, request)
        except TimeoutError as error:
            late = f"no TSA gave a timestamp within {self._total_seconds:g} s"
            raise UnavailableError("tsa.slow", late, hint="try again later") from error

    async def _deny(self, caller: Enrolment, encoded: bytes) -> None:
        code = "timestamp.denied"
        request_id = hashlib.sha256(encoded).hexdigest()
        await self._denials.refuse(caller, profile="", request_id=request_id, code=code)
        raise DeniedError("timestamp.denied", f"client {caller.name!r} may use no key profile, and gets no timestamps")

    async def _first_good(self, encoded: bytes, request: tsp.TimeStampReq) -> tuple[bytes, FreshToken]:
        """Ask one after the other, a second beside one that is slow; the first good answer wins."""
        loop = asyncio.get_running_loop()
        queue = [tsa.url for tsa in ranked(tuple(self._tsas.values()), self._ticks())]
        under_way: dict[asyncio.Task[tuple[bytes, FreshToken]], str] = {}
        failures: dict[str, PrivysealError] = {}
        asked_at = 0.0
        try:
            while queue or under_way:
                waited_ms = int((loop.time() - asked_at) * 1000)
                pause_ms = until_next_ms(len(under_way), waited_ms, self._hedge_ms) if queue else None
                if pause_ms == 0:
                    if (task := self._start(queue.pop(0), encoded, request)) is not None:
                        under_way[task] = task.get_name()
                        asked_at = loop.time()
                    continue
                timeout = None if pause_ms is None else pause_ms / 1000
                done, _ = await asyncio.wait(under_way, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    url = under_way[task]
                    failure = self._settle(url, task)
                    del under_way[task]
                    if failure is None:
                        return task.result()
                    failures[url] = failure
        finally:
            await self._abandon(under_way)
        raise self._none_gave(failures)

    def _start(
        self, url: str, encoded: bytes, request: tsp.TimeStampReq
    ) -> asyncio.Task[tuple[bytes, FreshToken]] | None:
        """Ask, unless another client's question has used up what was left meanwhile."""
        now_ms = self._ticks()
        if not may_ask(self._tsas[url], now_ms):
            return None
        self._tsas[url] = asked(self._tsas[url], now_ms)
        return asyncio.create_task(self._exchange(url, encoded, request), name=url)

    async def _exchange(self, url: str, encoded: bytes, request: tsp.TimeStampReq) -> tuple[bytes, FreshToken]:
        response = await self._ask(url, encoded)
        now = dt.datetime.fromtimestamp(self._clock() / 1000, dt.UTC)
        return response, check_response(response, request, now)

    async def _abandon(self, under_way: dict[asyncio.Task[tuple[bytes, FreshToken]], str]) -> None:
        for task, url in under_way.items():
            task.cancel()
            self._tsas[url] = outrun(self._tsas[url], self._ticks())
        await asyncio.gather(*under_way, return_exceptions=True)

    def _settle(self, url: str, task: asyncio.Task[tuple[bytes, FreshToken]]) -> PrivysealError | None:
        """Remember how a question ended, and answer with what went wrong."""
        try:
            task.result()
        except PrivysealError as error:
            patience = error.retry_after_seconds if isinstance(error, BusyError) else None
            self._tsas[url] = failed(self._tsas[url], self._ticks(), str(error), int((patience or 0) * 1000))
            return error
        self._tsas[url] = answered(self._tsas[url], self._ticks())
        return None

    def _none_gave(self, failures: dict[str, PrivysealError]) -> PrivysealError:
        now_ms = self._ticks()
        unasked = {
            url: f"{state_of(tsa, now_ms)}, not asked" + (f" (last: {tsa.problem})" if tsa.problem else "")
            for url, tsa in self._tsas.items()
            if url not in failures
        }
        reasons = "; ".join(f"{url}: {failures.get(url) or unasked[url]}" for url in self._tsas)
        message = f"the hub got no timestamp from its TSAs: {reasons}"
        if unasked or any(error.retryable for error in failures.values()):
            return UnavailableError("tsa.none_gave", message, hint="try again later")
        return UnsupportedInputError("tsa.none_will", message, hint="an administrator can name others in hub.toml")


def _checked(encoded: bytes) -> tsp.TimeStampReq:
    """A question that may be forwarded: of the size and kind that every client of ours asks."""
    if len(encoded) > _MAX_REQUEST_BYTES:
        raise MalformedInputError("tsp.request", f"a timestamp request of {len(encoded)} bytes is too large")
    request = tsp.parse_request(encoded)
    if DIGEST_SIZES.get(request.digest_algorithm) != len(request.imprint):
        raise MalformedInputError("tsp.request", "the imprint is no SHA-256, -384 or -512 digest")
    if not request.cert_req or request.nonce is None or not 0 < request.nonce < _NONCE_LIMIT:
        raise MalformedInputError("tsp.request", "a timestamp request asks for certificates, and has a 64-bit nonce")
    # A policy or an extension that a TSA refuses would count against the TSA, for all clients.
    if tsp.encode_request(request) != encoded:
        raise MalformedInputError("tsp.request", "a timestamp request names no policy and has no extensions")
    return request
