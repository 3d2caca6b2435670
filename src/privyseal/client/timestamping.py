# SPDX-License-Identifier: Apache-2.0
"""Timestamps for signatures: ask the TSAs in their order, believe none, go on to the next (RFC 3161).

Whatever a source answers is checked here: imprint, nonce, signature, certificate, clock, path to a trusted root. A
source that failed is asked last for a while, one that asked for patience is left alone for as long as it said.
"""

import datetime as dt
import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, Protocol

import msgspec

from privyseal.client.cell import Cell
from privyseal.client.config import ClientConfig
from privyseal.client.hub_cell import hub_cell
from privyseal.client.tsa_http import HttpTsa
from privyseal.client.verifying import trust_anchors
from privyseal.errors import (
    MalformedInputError,
    PrivysealError,
    UnavailableError,
    UnsupportedInputError,
    VerificationError,
)
from privyseal.pki import tsp, tsp_check
from privyseal.ports.clock import Clock, system_clock
from privyseal.wire.api import TimestampRequest, TimestampView, decode_body
from privyseal.wire.tsa import BusyError, check_tsa_url

__all__ = ["HubTsa", "Patience", "TimestampSource", "Timestamper", "open_timestamper"]

_NONCE_BITS: Final = 64
_DEMOTED_SECONDS: Final = 60.0
#: What makes another source worth a try; anything else (a refusal by the hub, a broken log) is the caller's to know.
_FAILURES: Final = (MalformedInputError, UnsupportedInputError, UnavailableError, VerificationError)


class _StoppedError(UnavailableError):
    """Nobody waits for the timestamp any more."""


class TimestampSource(Protocol):
    """Something that answers timestamp requests. May be asked by several threads at once."""

    @property
    def name(self) -> str:
        """How messages name it."""
        ...

    def ask(self, request: bytes, seconds: float) -> bytes:
        """The TimeStampResp for a TimeStampReq (both DER), within this time.

        Raises:
            UnavailableError: trying again later may help. MalformedInputError, UnsupportedInputError: it will not.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one token may take.

    Attributes:
        total_seconds: For all sources and all waiting together.
        exchange_seconds: For one exchange.
        attempts: How often one source is asked at most.
        pause_seconds: Before a source is asked again, doubled each time, if it did not say for how long.
    """

    total_seconds: float = 120.0
    exchange_seconds: float = 20.0
    attempts: int = 3
    pause_seconds: float = 2.0


@dataclass(slots=True, kw_only=True)
class _Standing:
    """What one source did for all callers: until when it asked to be left alone, and until when it is asked last."""

    resting_until: float = 0.0
    demoted_until: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Course:
    """What one source did for this one token."""

    place: int
    source: TimestampSource
    attempts: int = 0
    ready_at: float = 0.0
    failure: PrivysealError | None = None


class Timestamper:
    """Gets timestamp tokens; safe to share between threads."""

    def __init__(
        self,
        sources: tuple[TimestampSource, ...],
        anchors: tuple[bytes, ...],
        *,
        patience: Patience | None = None,
        digest_algorithm: str = "",
        notice: Callable[[str], None] = lambda _: None,
        clock: Clock = system_clock,
        monotonic: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] | None = None,
    ) -> None:
        """Take what it works with.

        Args:
            sources: In the order in which they are asked.
            anchors: Root certificates (DER) that are trusted for time stamping.
            patience: Bounds of one token.
            digest_algorithm: Of every imprint, whatever the signature's is; empty leaves it to the signature.
            notice: Told in words whenever a source fails.
            clock: This machine's time, against which genTime is held.
            monotonic: Clock of deadlines and pauses, in seconds.
            wait: Lets that many seconds pass; otherwise they pass, unless `stop` is called meanwhile.
        """
        self._sources = sources
        self._anchors = anchors
        self._patience = patience or Patience()
        self._digest_algorithm = digest_algorithm
        self._notice = notice
        self._clock = clock
        self._monotonic = monotonic
        self._stopped: Future[bytes] = Future()
        self._wait = wait or self._pause
        self._lock = threading.Lock()
        self._standings = tuple(_Standing() for _ in sources)

    @property
    def anchors(self) -> tuple[bytes, ...]:
        """Roots (DER) at which the tokens end."""
        return self._anchors

    def stop(self) -> None:
        """Let nobody wait any more: whoever is inside `token`, on whatever thread, soon gets an error instead."""
        if not self._stopped.done():
            self._stopped.set_result(b"")

    def _pause(self, seconds: float) -> None:
        wait((self._stopped,), timeout=seconds)

    def token(self, signature: bytes, digest_algorithm: str) -> bytes:
        """A timestamp token (ContentInfo, DER) over a signature value, checked in every respect.

        Raises:
            UnavailableError: `timestamp.unavailable` if no source gave one and trying later may help.
            VerificationError: `timestamp.refused` if no source gave one that holds. Both name every source and why.
            PrivysealError: what a hub that was asked says of the caller.
        """
        deadline = self._monotonic() + self._patience.total_seconds
        digest_algorithm = self._digest_algorithm or digest_algorithm
        imprint = hashlib.new(digest_algorithm, signature).digest()
        courses = tuple(_Course(place=place, source=source) for place, source in enumerate(self._sources))
        while (course := self._next(courses, deadline)) is not None:
            nonce = secrets.randbits(_NONCE_BITS) | 1
            request = tsp.TimeStampReq(digest_algorithm=digest_algorithm, imprint=imprint, nonce=nonce)
            try:
                return self._ask(course.source, request, deadline)
            except _StoppedError:
                raise
            except _FAILURES as error:
                self._failed(course, error)
        raise _no_token(courses)

    def _ask(self, source: TimestampSource, request: tsp.TimeStampReq, deadline: float) -> bytes:
        seconds = min(self._patience.exchange_seconds, deadline - self._monotonic())
        response = self._unless_stopped(lambda: source.ask(tsp.encode_request(request), seconds))
        now = dt.datetime.fromtimestamp(self._clock() / 1000, dt.UTC)
        fresh = tsp_check.check_response(response, request, now)
        tsp_check.check_trust(fresh, self._anchors)
        return fresh.token

    def _unless_stopped(self, exchange: Callable[[], bytes]) -> bytes:
        """On a thread that nobody has to wait for: no signal reaches one that waits for a peer."""
        answer: Future[bytes] = Future()

        def run() -> None:
            try:
                answer.set_result(exchange())
            except BaseException as error:  # noqa: BLE001 - handed over, and raised where it is waited for
                answer.set_exception(error)

        if not self._stopped.done():
            threading.Thread(target=run, name="privyseal-tsa", daemon=True).start()
            wait((answer, self._stopped), return_when=FIRST_COMPLETED)
        if not answer.done():
            raise _StoppedError("timestamp.unavailable", "the run was interrupted while it waited for a timestamp")
        return answer.result()

    def _next(self, courses: tuple[_Course, ...], deadline: float) -> _Course | None:
        """The source to ask now, after waiting for it if all have to be waited for; None if there is no more."""
        now = self._monotonic()
        with self._lock:
            open_ones = []
            for course in courses:
                standing = self._standings[course.place]
                ready_at = max(course.ready_at, standing.resting_until)
                if course.failure is None and ready_at > now:
                    left = f"it has asked to be left alone, for {ready_at - now:.0f} s more"
                    course.failure = BusyError("tsa.busy", left, retry_after_seconds=ready_at - now)
                if course.attempts < self._patience.attempts and ready_at < deadline:
                    rank = (max(ready_at, now), course.attempts, standing.demoted_until > now, course.place)
                    open_ones.append((rank, course))
        if not open_ones or now >= deadline:
            return None
        (ready_at, *_), chosen = min(open_ones, key=lambda one: one[0])
        if ready_at > now:
            self._wait(ready_at - now)
        chosen.attempts += 1
        return chosen

    def _failed(self, course: _Course, error: PrivysealError) -> None:
        now = self._monotonic()
        course.failure = error
        with self._lock:
            standing = self._standings[course.place]
            standing.demoted_until = now + _DEMOTED_SECONDS
            if not error.retryable:
                course.attempts = self._patience.attempts
            elif isinstance(error, BusyError) and error.retry_after_seconds is not None:
                standing.resting_until = max(standing.resting_until, now + error.retry_after_seconds)
            else:
                course.ready_at = now + self._patience.pause_seconds * 2 ** (course.attempts - 1)
        self._notice(f"no timestamp from {course.source.name}: {error}")


def _no_token(courses: tuple[_Course, ...]) -> PrivysealError:
    failures = [(course.source.name, course.failure) for course in courses if course.failure is not None]
    reasons = "; ".join(f"{name}: {failure}" for name, failure in failures)
    hints = dict.fromkeys(failure.hint for _, failure in failures if failure.hint)
    if any(failure.retryable for _, failure in failures):
        hint = "; ".join(("try again later, or name another TSA with --timestamp", *hints))
        return UnavailableError("timestamp.unavailable", f"no TSA gave a timestamp: {reasons}", hint=hint)
    hint = "; ".join(hints) or "name another TSA with --timestamp"
    return VerificationError("timestamp.refused", f"no TSA gave a timestamp that holds: {reasons}", hint=hint)


class HubTsa:
    """The hub, which asks its own list of TSAs and records each token in its log."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._idle: SimpleQueue[Cell] = SimpleQueue()

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"hub {' or '.join(self._config.hub_urls)}"

    def ask(self, request: bytes, seconds: float) -> bytes:  # noqa: ARG002 - the transport has bounds of its own
        """Have the hub ask.

        Raises:
            PrivysealError: what the hub says, or why it does not.
        """
        body = msgspec.json.encode(TimestampRequest(request=request))
        try:
            cell = self._idle.get_nowait()
        except Empty:
            cell = hub_cell(self._config)
        try:
            answer = cell.request("POST", "/v1/timestamps", body)
        finally:
            self._idle.put(cell)
        return decode_body(answer, TimestampView).response


def open_timestamper(
    config: ClientConfig | None,
    urls: tuple[str, ...] = (),
    *,
    trust: tuple[Path, ...] = (),
    digest_algorithm: str = "",
    notice: Callable[[str], None] = lambda _: None,
) -> Timestamper | None:
    """The timestamper that configuration and flags ask for.

    Args:
        config: client.toml, if there is one.
        urls: TSAs named by flag: asked directly, instead of what the configuration names.
        trust: PEM files with further roots.
        digest_algorithm: See `Timestamper`.
        notice: Told in words whenever a source fails.

    Returns:
        None if neither names a TSA.

    Raises:
        ConfigError: `timestamp.url`, `file.missing`, `trust.malformed`.
    """
    sources: tuple[TimestampSource, ...]
    if not urls and config is not None and config.timestamp_via == "hub":
        sources = (HubTsa(config),)
    else:
        for url in urls:
            check_tsa_url(url)
        named = urls or (() if config is None else config.timestamp)
        sources = tuple(HttpTsa(url=url) for url in dict.fromkeys(named))
    if not sources:
        return None
    anchors = trust_anchors((*trust, *(() if config is None else config.trust)))
    return Timestamper(sources, anchors, digest_algorithm=digest_algorithm, notice=notice)
