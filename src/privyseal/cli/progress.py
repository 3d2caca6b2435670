# SPDX-License-Identifier: Apache-2.0
"""How far a batch has come: one line on a terminal that is written over, nothing anywhere else."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from privyseal.cli.moments import duration_text

__all__ = ["Watcher", "watching"]

_REFRESH_SECONDS: Final = 0.1
_ERASE_LINE: Final = "\r\x1b[K"
_STAGES: Final = {"read": "reading", "sign": "signing"}


class Watcher:
    """Counts what ended, and shows it if there is a terminal."""

    def __init__(self, terminal: TextIO | None) -> None:
        self._terminal = terminal
        self._started_s = time.monotonic()
        self._stage = ""
        self._stage_started_s = self._started_s
        self._shown_s = 0.0

    @property
    def elapsed_seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started_s

    def show(self, stage: str, done: int, total: int, position: int) -> None:
        """Tell how far it is; at most ten times a second."""
        now_s = time.monotonic()
        if stage != self._stage:
            self._stage, self._stage_started_s = stage, now_s
        elif now_s - self._shown_s < _REFRESH_SECONDS:
            return
        self._shown_s = now_s
        self._write(_line(stage, done, total, position, now_s - self._stage_started_s))

    def clear(self) -> None:
        """Take the line away, so that something else can be said."""
        self._write("")

    def _write(self, text: str) -> None:
        if self._terminal is not None:
            self._terminal.write(_ERASE_LINE + text)
            self._terminal.flush()


def _line(stage: str, done: int, total: int, position: int, seconds: float) -> str:
    text = f"{_STAGES[stage]} {done}/{total}"
    if done and seconds > 0:
        text += f", {done / seconds:.0f} a second, {duration_text((total - done) * seconds / done)} left"
    if position:
        text += f"; {position} jobs of the queue come first"
    return text


@contextmanager
def watching(*, quiet: bool) -> Iterator[Watcher]:
    """Watch a batch; the line is gone at the end."""
    terminal = None if quiet or not sys.stderr.isatty() else sys.stderr
    watcher = Watcher(terminal)
    try:
        yield watcher
    finally:
        watcher.clear()
