# SPDX-License-Identifier: Apache-2.0
"""The hubs of one cell as one: any of them does, and each knows what the others have taken.

They share CA, log and database, so a request that one hub took is answered by the next one, and the same bytes sent
twice are one request.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from privyseal.client.config import ClientConfig
from privyseal.client.time_limit import Deadline, duration_text
from privyseal.client.transport import WebTransport, web_context
from privyseal.errors import UnavailableError

__all__ = ["Cell", "silence_seconds", "web_cell"]

#: What would not be another answer at another moment.
_LASTING: Final = "hub.answer"
#: How long one of several hubs may say nothing, at first.
_PATIENCE_SECONDS: Final = 5.0
#: What an upload adds to that.
_BYTES_A_SECOND: Final = 1 << 20


def silence_seconds(turn: int, wait_seconds: float, sent_bytes: int, patience_seconds: float) -> float:
    """How long one of several hubs may say nothing before the next one is asked.

    It doubles with each time that all of them were asked in vain: they may all be there, and have much to do.

    Args:
        turn: How often all were asked before: 0, 1, 2 …
        wait_seconds: What the hub was asked to wait before it answers.
        sent_bytes: Of the question.
        patience_seconds: At first, for a small question.
    """
    return wait_seconds + patience_seconds * 2.0 ** min(turn, 16) + sent_bytes / _BYTES_A_SECOND


def _fraction() -> float:
    return secrets.SystemRandom().random()


class Cell:
    """Starts with any of the hubs, stays with it while it answers, and goes on to the next when it does not.

    Only what says "not now" (`UnavailableError`) is asked again: at the next hub at once, and when none is left after
    a pause, for as long as the deadline allows.
    """

    def __init__(
        self,
        hubs: Sequence[WebTransport],
        *,
        fraction: Callable[[], float] = _fraction,
        pause: Callable[[float], None] = time.sleep,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        """`patience_seconds` is how long one of several hubs may say nothing, at first."""
        self._hubs: Final = tuple(hubs)
        self._fraction: Final = fraction
        self._pause: Final = pause
        self._patience_seconds: Final = patience_seconds
        self._told: set[str] = set()
        self._told_s = 0.0
        self._at = int(fraction() * len(self._hubs)) % len(self._hubs)

    @property
    def has_others(self) -> bool:
        """Whether there are several hubs."""
        return len(self._hubs) > 1

    @property
    def sent_bytes(self) -> int:
        """Bodies sent so far."""
        return sum(hub.sent_bytes for hub in self._hubs)

    @property
    def received_bytes(self) -> int:
        """Bodies received so far."""
        return sum(hub.received_bytes for hub in self._hubs)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        deadline: Deadline | None = None,
        wait_seconds: float = 0.0,
    ) -> bytes:
        """One request to any of the hubs; answers with the body.

        Args:
            method: GET or POST.
            path: With its query.
            body: The same bytes at each try: whoever asks sees to it that twice is as good as once.
            deadline: Until when to try again; without one, each hub is asked once.
            wait_seconds: What the question asks the hub to wait before it answers.

        Raises:
            UnavailableError: what was last in the way.
            PrivysealError: what a hub said, or that one is not the pinned hub.
        """
        tries, pauses = 0, 0
        while True:
            hub = self._hubs[self._at]
            tries += 1
            try:
                answer = hub.request(
                    method,
                    path,
                    body,
                    seconds=None if deadline is None else deadline.left_seconds,
                    silence_seconds=self._silence_seconds(tries, wait_seconds, body),
                )
            except UnavailableError as error:
                if error.code == _LASTING:
                    raise
                self._at = (self._at + 1) % len(self._hubs)
                # A hub that names its time speaks for all: they have one queue.
                if tries % len(self._hubs) and error.retry_after_seconds is None:
                    continue
                if deadline is None:
                    raise
                seconds = deadline.next_pause(pauses, self._fraction(), error.retry_after_seconds or 0.0)
                if seconds is None:
                    raise _given_up(error, tries, deadline) from error
                self._tell(error, deadline)
            else:
                self._tell_end(deadline)
                return answer
            self._pause(seconds)
            pauses += 1

    def _silence_seconds(self, tries: int, wait_seconds: float, body: bytes | None) -> float | None:
        if not self.has_others:
            return None
        turn = (tries - 1) // len(self._hubs)
        return silence_seconds(turn, wait_seconds, len(body or b""), self._patience_seconds)

    def _tell(self, error: UnavailableError, deadline: Deadline) -> None:
        """Each cause once, however often it is in the way."""
        if not self._told:
            self._told_s = deadline.waited_seconds
        if error.code not in self._told:
            self._told.add(error.code)
            deadline.limit.notice(f"{error}; trying again for up to {duration_text(deadline.left_seconds)}")

    def _tell_end(self, deadline: Deadline | None) -> None:
        if self._told and deadline is not None:
            deadline.limit.notice(f"it goes on, after {duration_text(deadline.waited_seconds - self._told_s)}")
        self._told.clear()

    def stream(self, path: str, headers: dict[str, str], *, silence_seconds: float) -> Iterator[bytes]:
        """GET what does not end, from the first hub that gives any of it; see `WebTransport.stream`.

        Raises:
            PrivysealError: as `request`; a stream that breaks off is to be asked for again.
        """
        for left in reversed(range(len(self._hubs))):
            came = False
            try:
                for piece in self._hubs[self._at].stream(path, headers, silence_seconds=silence_seconds):
                    came = True
                    yield piece
            except UnavailableError as error:
                self._at = (self._at + 1) % len(self._hubs)
                if came or not left or error.code == _LASTING:
                    raise
            else:
                return


def _given_up(error: UnavailableError, tries: int, deadline: Deadline) -> UnavailableError:
    tried = "" if tries == 1 else f"; tried {tries} times in {deadline.waited_seconds:.0f} s"
    hint = "; ".join(filter(None, (error.hint, "the same command goes on where this one stopped")))
    return UnavailableError(error.code, error.message + tried, hint=hint, retry_after_seconds=error.retry_after_seconds)


def web_cell(config: ClientConfig) -> Cell:
    """The web listeners.

    Raises:
        ConfigError: `file.missing`.
    """
    context = web_context(config.load_bundle().statement.ca)
    return Cell(tuple(WebTransport(url, context) for url in config.web_urls))
