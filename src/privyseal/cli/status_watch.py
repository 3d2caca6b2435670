# SPDX-License-Identifier: Apache-2.0
"""`privyseal status --watch`: the hub's status as it changes, on a screen or as one block after another.

A thread follows the hub's events, which only say that it is worth looking again; without them it is looked every two
seconds. A hub that is away is asked again until it is back.
"""

import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from privyseal.cli.render import emit, error_document, say
from privyseal.cli.status_lines import status_lines
from privyseal.cli.watch_screen import Screen, screen_possible
from privyseal.client.config import ClientConfig
from privyseal.client.events import follow_events
from privyseal.client.hub import HubClient
from privyseal.client.hub_cell import hub_cell
from privyseal.errors import PrivysealError, UnavailableError
from privyseal.ports.clock import system_clock
from privyseal.wire.api import HubStatus

__all__ = ["watch_status"]

_LOOK_SECONDS: Final = 2.0
#: Events come in swarms: so much time passes between two looks in any case.
_GATHER_SECONDS: Final = 0.25
_FOLLOW_AGAIN_SECONDS: Final = 5.0


class _Display(Protocol):
    def show(self, found: HubStatus | None, trouble: UnavailableError | None) -> None:
        """Show what was seen last; `trouble` if the hub could not be asked just now."""
        ...

    def wait(self, news: threading.Event) -> bool:
        """Until it is time to look again; False if the person wants to leave."""
        ...


def watch_status(config: ClientConfig, *, as_json: bool) -> None:
    """Show a hub's status as it changes, until the person leaves.

    Raises:
        PrivysealError: what asking again would not change. KeyboardInterrupt: Ctrl-C.
    """
    news = threading.Event()
    threading.Thread(target=_follow, args=(config, news.set), name="events", daemon=True).start()
    if as_json or not screen_possible():
        _watch(config, _Blocks(as_json=as_json), news)
        return
    with Screen() as screen:
        _watch(config, _OnScreen(screen), news)


def _watch(config: ClientConfig, display: _Display, news: threading.Event) -> None:
    client, found = HubClient(config), None
    while True:
        news.clear()
        trouble = None
        try:
            found = client.status()
        except UnavailableError as error:
            trouble = error
        display.show(found, trouble)
        if not display.wait(news):
            return


def _follow(config: ClientConfig, told: Callable[[], None]) -> None:
    while True:
        try:
            for _ in follow_events(hub_cell(config), wait=time.sleep, trouble=lambda _: told()):
                told()
        except PrivysealError:  # whoever looks at the status meets it, too, and says so
            time.sleep(_FOLLOW_AGAIN_SECONDS)


def _away(trouble: UnavailableError) -> str:
    return f"no hub: {trouble}; again in {_LOOK_SECONDS:.0f} s"


class _Blocks:
    """Standard output that is no terminal: all of it again after each change."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._shown: object = None

    def show(self, found: HubStatus | None, trouble: UnavailableError | None) -> None:
        data = _told(found, trouble)
        lines = [] if found is None or trouble is not None else [*status_lines(found, system_clock()), ""]
        shown: object = data if self._as_json or trouble is not None else lines
        if shown == self._shown:
            return
        self._shown = shown
        if self._as_json or trouble is None:
            emit(data, lines, as_json=self._as_json)
            sys.stdout.flush()
        else:
            say(_away(trouble))

    def wait(self, news: threading.Event) -> bool:
        time.sleep(_GATHER_SECONDS)
        news.wait(_LOOK_SECONDS - _GATHER_SECONDS)
        return True


def _told(found: HubStatus | None, trouble: UnavailableError | None) -> dict[str, object]:
    if trouble is not None:
        return {"error": error_document(trouble)}
    told: dict[str, object] = msgspec.to_builtins(found)
    return told


class _OnScreen:
    """A terminal: what is there is drawn over."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def show(self, found: HubStatus | None, trouble: UnavailableError | None) -> None:
        lines = [] if found is None else status_lines(found, system_clock())
        if trouble is not None:
            lines = [_away(trouble), "", *(["as it was before:", ""] if lines else []), *lines]
        self._screen.draw(lines)

    def wait(self, news: threading.Event) -> bool:
        return self._screen.wait(news, at_least_seconds=_GATHER_SECONDS, at_most_seconds=_LOOK_SECONDS)
