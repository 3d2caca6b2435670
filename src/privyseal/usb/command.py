# SPDX-License-Identifier: Apache-2.0
"""Programs run to their end: a configured command that restarts pcscd or the host, and our own short-lived children.

No shell, no input, an environment of our choice, a bounded tail of what it says, a deadline, and the end of its whole
process group when that has passed.
"""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from privyseal.errors import ConfigError, TokenError

__all__ = ["Ended", "run_command", "run_to_end"]

#: How much of what a program says is kept: its end.
TAIL_BYTES: Final = 16_384
_READ_BYTES: Final = 65_536
#: A killed program that waits inside the kernel (a stuck USB transfer) is left behind after this long.
_KILL_SECONDS: Final = 5.0
_SHOWN_CHARACTERS: Final = 200
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended.

    Attributes:
        status: Its exit status; the negative number of the signal that ended it; None if not even SIGKILL did.
        in_time: Whether it ended by itself, before its deadline.
        output: The last 16 KiB of its stdout and stderr together.
    """

    status: int | None
    in_time: bool
    output: bytes

    @property
    def last_line(self) -> str:
        """The last line that it said, at most 200 characters, fit to be shown."""
        lines = self.output.decode("utf-8", "replace").split("\n")
        shown = [re.sub(r"[^ -~\u00a0-\u024f]+", " ", line).strip() for line in lines]
        return next((line for line in reversed(shown) if line), "")[:_SHOWN_CHARACTERS]


async def run_command(arguments: Sequence[str], *, name: str, deadline_seconds: float) -> Ended:
    """Run a command of the configuration, in / and with PATH and LANG alone.

    A service that it starts should not keep its output: that ends with the command.

    Args:
        arguments: Program and arguments; a program without a slash is looked for in the system's directories.
        name: What the command is for, as messages tell it: "restart pcscd".
        deadline_seconds: When its process group is killed. What has left the group, as a service does, stays.

    Raises:
        ConfigError: `command.missing` if there is no such program, or it cannot be executed.
        TokenError: `command.timeout`, `command.failed` for any exit status but 0.
    """
    told = f"the command to {name}"
    if not arguments or not arguments[0] or any("\0" in argument for argument in arguments):
        raise ConfigError("command.missing", f"{told} is empty", hint="give program and arguments as a list of texts")
    try:
        ended = await run_to_end(arguments, deadline_seconds=deadline_seconds, environment=_ENVIRONMENT)
    except OSError as error:
        raise ConfigError(
            "command.missing",
            f"{told}, {arguments[0]!r}, cannot be started: {error.strerror}",
            hint="name a program that the agent's account may execute, by its whole path",
        ) from error
    said = f": {ended.last_line}" if ended.last_line else ""
    if not ended.in_time:
        state = "it was killed" if ended.status is not None else "not even killing it ended it"
        raise TokenError(
            "command.timeout",
            f"{told}, {arguments[0]!r}, did not end within {deadline_seconds:g} s; {state}{said}",
            hint="run it by hand as the agent's account, and see what it waits for",
        )
    if ended.status != 0:
        raise TokenError(
            "command.failed",
            f"{told}, {arguments[0]!r}, ended with status {ended.status}{said}",
            hint="run it by hand as the agent's account; it may lack a permission",
        )
    return ended


async def run_to_end(
    arguments: Sequence[str],
    *,
    deadline_seconds: float,
    environment: Mapping[str, str],
    grace_seconds: float = 0.0,
    inherited: Sequence[int] = (),
) -> Ended:
    """Run a program in a session of its own.

    It waits for the program, not for the end of its output: what it leaves running may hold that for days. When it is
    cancelled, it ends the program first.

    Args:
        arguments: Program and arguments.
        deadline_seconds: How long it may run.
        environment: All of its environment.
        grace_seconds: How long it may go on after SIGTERM, which it gets at its deadline; then SIGKILL ends its
            process group.
        inherited: Open files that it gets, under the same numbers.

    Raises:
        OSError: It cannot be started.
    """
    output, inlet = os.pipe()
    tail = _Tail(output)
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=inlet,
                stderr=inlet,
                env=dict(environment),
                cwd="/",
                pass_fds=tuple(inherited),
                start_new_session=True,
            )
        finally:
            os.close(inlet)
        in_time = await _wait(process, deadline_seconds, grace_seconds)
    finally:
        tail.close()
    return Ended(status=process.returncode, in_time=in_time, output=tail.text)


async def _wait(process: asyncio.subprocess.Process, deadline_seconds: float, grace_seconds: float) -> bool:
    """Whether it ended in time; if not, or if this is cancelled, it is ended."""
    try:
        if await _has_ended(process, deadline_seconds):
            return True
        if grace_seconds:
            _signal(process, signal.SIGTERM)
            await _has_ended(process, grace_seconds)
    except asyncio.CancelledError:
        if grace_seconds:
            _signal(process, signal.SIGTERM)
            await _has_ended(process, grace_seconds)
        await _kill(process)
        raise
    await _kill(process)
    return False


async def _kill(process: asyncio.subprocess.Process) -> None:
    _signal(process, signal.SIGKILL)
    await _has_ended(process, _KILL_SECONDS)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # Its process group, as it leads a session of its own.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _has_ended(process: asyncio.subprocess.Process, seconds: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await process.wait()
    return process.returncode is not None


class _Tail:
    """Reads a pipe as fast as it fills, and keeps the end of it."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._kept = bytearray()
        self._loop = asyncio.get_running_loop()
        os.set_blocking(pipe, False)
        self._loop.add_reader(pipe, self._read)

    @property
    def text(self) -> bytes:
        """What is kept."""
        return bytes(self._kept)

    def close(self) -> None:
        """Take what is in the pipe now, and read no more."""
        self._loop.remove_reader(self._pipe)
        for _ in range(TAIL_BYTES):
            if not self._read():
                break
        os.close(self._pipe)

    def _read(self) -> bool:
        try:
            read = os.read(self._pipe, _READ_BYTES)
        except BlockingIOError:
            return False
        self._kept += read
        del self._kept[:-TAIL_BYTES]
        if not read:
            self._loop.remove_reader(self._pipe)
        return bool(read)
