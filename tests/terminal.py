# SPDX-License-Identifier: Apache-2.0
"""A program on a terminal of its own, and somebody who answers its questions."""

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Callable, Mapping
from pathlib import Path

from programs import command, environment

__all__ = ["Answer", "on_terminal", "run_on_terminal"]

#: What is typed; or how it follows from what the terminal has shown.
Answer = str | Callable[[str], str]


def on_terminal(*arguments: str | Path, answers: dict[str, str], more: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command; each answer is typed once its question is on the screen.

    Returns:
        Exit code, and what the terminal showed.
    """
    return run_on_terminal(command(*arguments), environment(Path.cwd(), more=more), Path.cwd(), answers)


def run_on_terminal(
    arguments: list[str],
    variables: dict[str, str],
    directory: Path,
    answers: Mapping[str, Answer],
    *,
    columns: int = 80,
    rows: int = 24,
) -> tuple[int, str]:
    """The same for any program, in a directory, on a terminal of that size."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.chdir(directory)
        os.execve(arguments[0], arguments, variables)
    shown = ""
    waiting = dict(answers)
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux says EIO where others say end of file
            break
        if not part:
            break
        shown += part.decode(errors="replace")
        for question in [question for question in waiting if question in shown]:
            answer = waiting.pop(question)
            os.write(terminal, (answer if isinstance(answer, str) else answer(shown)).encode() + b"\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown
