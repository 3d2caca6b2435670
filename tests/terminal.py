# SPDX-License-Identifier: Apache-2.0
"""A program on a terminal of its own, and somebody who answers its questions."""

import os
import pty
import sys
from pathlib import Path

from programs import command, environment

__all__ = ["on_terminal"]


def on_terminal(*arguments: str | Path, answers: dict[str, str], more: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command; each answer is typed once its question is on the screen.

    Returns:
        Exit code, and what the terminal showed.
    """
    variables = environment(Path.cwd(), more=more)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command(*arguments), variables)
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
            os.write(terminal, waiting.pop(question).encode() + b"\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown
