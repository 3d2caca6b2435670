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
from privyseal.client.time_limit import Deadline
from privyseal.client.transport import WebTransport, web_context
from privyseal.errors import UnavailableError

__all__ = ["Cell", "web_cell"]

#: What would not be another answer at another moment.
_LASTING: Final = "hub.answer"


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
    ) -> None:
        self._hubs: Final = tuple(hubs)
        self._fraction: Final = fraction
        self._pause: Final = pause
        self._at = int(fraction() * len(self._hubs)) % len(self._hubs)

    @property
    def sent_bytes(self) -> int:
        """Bodies sent so far."""
        return sum(hub.sent_bytes for hub in self._hubs)

    @property
    def received_bytes(self) -> int:
        """Bodies received so far."""
        return sum(hub.received_bytes for hub in self._hubs)

    def request(self, method: str, path: str, body: bytes | None = None, *, deadline: Deadline | None = None) -> bytes:
        """One request to any of the hubs; answers with the body.

        Args:
            method: GET or POST.
            path: With its query.
            body: The same bytes at each try: whoever asks sees to it that twice is as good as once.
            deadline: Until when to try again; without one, each hub is asked once.

        Raises:
            UnavailableError: what was last in the way.
            PrivysealError: what a hub said, or that one is not the pinned hub.
        """
        tries, pauses = 0, 0
        while True:
            hub = self._hubs[self._at]
            tries += 1
            try:
                seconds = None if deadline is None else deadline.left_seconds
                return hub.request(method, path, body, seconds=seconds)
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
                deadline.limit.notice(f"{error}; trying again in {seconds:.1f} s")
            self._pause(seconds)
            pauses += 1

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
