# SPDX-License-Identifier: Apache-2.0
"""A terminal that one command has for itself for a while: lines that are drawn over, and the key `q`.

The alternate screen of ECMA-48 terminals, so that what stood there before is back afterwards. Lines are cut at the
edge, and text from elsewhere cannot move the cursor.
"""

import datetime as dt
import os
import re
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Final, Self

from privyseal.cli.render import printable

__all__ = ["Screen", "fit", "screen_possible", "tinted"]

_BEGIN: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # alternate screen, no cursor, no wrapping
_END: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_ERASE_LINE: Final = "\x1b[K"
_ERASE_BELOW: Final = "\x1b[J"
_PLAIN: Final = "\x1b[0m"
_TERMINATED: Final = 143
_LEAVE: Final = frozenset("qQ")
_SLICE_SECONDS: Final = 0.1

_RED, _ALARM, _YELLOW, _GREEN, _BOLD = "\x1b[31m", "\x1b[1;31m", "\x1b[33m", "\x1b[32m", "\x1b[1m"
#: Of a terminal that does not tell.
_COLUMNS, _ROWS = 80, 24
#: What a glance should find, whole lines and then words; the words say the same without colours.
_LINES: Final = (
    (re.compile(r"[A-Z][A-Z0-9 /]*$"), _BOLD),
    (re.compile(r"(?:no hub:|EXPIRED|URGENT) "), _ALARM),
    (re.compile(r"(?:WARNING|NOTICE|  +next:) "), _YELLOW),
)
_WORDS: Final = (
    (re.compile(r"\b(?:LOCKED|FINAL TRY|expired)\b"), _ALARM),
    (
        re.compile(r"\b(?:agent offline|no link|not served|cannot sign|failed|blocked|quarantined|frozen|absent)\b"),
        _RED,
    ),
    (re.compile(r"\b(?:COUNT LOW|drained|denied|cancelled|lease elsewhere)\b"), _YELLOW),
    (re.compile(r"\b(?:ready|signed)\b"), _GREEN),
)


def screen_possible() -> bool:
    """Whether standard output is a terminal whose cursor can be moved."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def fit(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """As much as has room: sentences are broken, rows of tables cut; it is said how many lines are left out."""
    shown = [part for line in lines for part in _broken(printable(line).replace("\n", "?"), columns)]
    if len(shown) > rows:
        left_out = len(shown) - rows + 1
        shown = [*shown[: rows - 1], f"… {left_out} lines more: make the window higher, or privyseal status"]
    return [line if len(line) <= columns else line[: max(columns - 1, 0)] + "…" for line in shown]


def _broken(line: str, columns: int) -> list[str]:
    """A sentence in lines that have room; columns of a table stand two spaces apart, words do not."""
    text = line.lstrip(" ")
    if len(line) <= columns or "  " in text:
        return [line]
    indent = " " * (len(line) - len(text))
    return textwrap.wrap(text, max(columns, 20), initial_indent=indent, subsequent_indent=f"{indent}  ") or [line]


def tinted(line: str) -> str:
    """A line with colours: all of it, or the first word of each kind that matters."""
    for pattern, code in _LINES:
        if pattern.match(line):
            return code + line + _PLAIN
    for pattern, code in _WORDS:
        if found := pattern.search(line):
            line = line[: found.start()] + code + found[0] + _PLAIN + line[found.end() :]
    return line


class Screen:
    """The terminal, from `with` to its end; afterwards all is as it was, however it ends."""

    def __init__(self) -> None:
        self._coloured: Final = not os.environ.get("NO_COLOR")
        self._keys: Final = sys.stdin is not None and sys.stdin.isatty() and os.name == "posix"
        self._typing: list[Any] = []
        self._former: Any = None

    def __enter__(self) -> Self:
        self._former = signal.signal(signal.SIGTERM, _terminated)
        if self._keys:
            import termios  # noqa: PLC0415 - not on Windows
            import tty  # noqa: PLC0415

            self._typing = termios.tcgetattr(sys.stdin.fileno())
            tty.setcbreak(sys.stdin.fileno())
        self._write(_BEGIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._typing:
            import termios  # noqa: PLC0415

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._typing)
        self._write(_END)
        signal.signal(signal.SIGTERM, self._former)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines in place of those before."""
        columns, rows = _size()
        shown = fit(lines, columns, max(rows - 2, 1))
        foot = f"{dt.datetime.now(dt.UTC):%H:%M:%SZ}" + ("   q leaves" if self._keys else "   Ctrl-C leaves")
        shown += [""] * (max(rows - 1, 1) - len(shown))
        if self._coloured:
            shown = [tinted(line) for line in shown]
        shown.append(fit([foot], columns, 1)[0])
        encoding = sys.stdout.encoding or "utf-8"
        text = f"{_ERASE_LINE}\r\n".join(shown).encode(encoding, "replace").decode(encoding)
        self._write(_HOME + text + _ERASE_LINE + _ERASE_BELOW)

    def wait(self, news: threading.Event, *, at_least_seconds: float, at_most_seconds: float) -> bool:
        """Wait for news, or until the time is over; False as soon as `q` is typed."""
        begin_s = time.monotonic()
        while (passed := time.monotonic() - begin_s) < at_most_seconds:
            if passed >= at_least_seconds and news.is_set():
                break
            if self._typed(_SLICE_SECONDS) & _LEAVE:
                return False
        return True

    def _typed(self, seconds: float) -> frozenset[str]:
        if not self._keys:
            time.sleep(seconds)
            return frozenset()
        import select  # noqa: PLC0415 - as termios

        if not select.select([sys.stdin.fileno()], [], [], seconds)[0]:
            return frozenset()
        typed = os.read(sys.stdin.fileno(), 64)
        return frozenset(typed.decode("ascii", "replace")) if typed else _LEAVE  # nothing: the terminal is gone


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_TERMINATED)


def _size() -> tuple[int, int]:
    """Columns and rows of the terminal as it is now; COLUMNS and LINES only say how another one was."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns = rows = 0
    return columns or _COLUMNS, rows or _ROWS
