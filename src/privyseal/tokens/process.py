# SPDX-License-Identifier: Apache-2.0
"""The supervisor's end of a worker process: starting it, frames with deadlines, making sure that it ends."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

from privyseal.errors import TokenError
from privyseal.tokens import frames
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.pin import PinBuffer

__all__ = ["WorkerProcess"]

#: What a worker needs of the environment around it. Everything else (and with it other services' secrets)
#: stays out of a vendor's module; what a module needs beyond this is named in the token's configuration.
_KEPT_VARIABLES: Final = (
    "CREDENTIALS_DIRECTORY",
    "DBUS_SESSION_BUS_ADDRESS",  # where the keyring is
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "SYSTEMROOT",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
)

#: Those with a deadline of their own.
_LONG_FUNCTIONS: Final = frozenset({"C_Sign", "C_GenerateKeyPair"})

#: A killed process that waits inside the kernel (a stuck USB transfer) is left behind after this long.
_KILL_SECONDS: Final = 5.0


class WorkerProcess:
    """One worker. Made by `spawn`, then `open`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process
        #: The function that the worker said it would enter, during the call in progress.
        self.function = ""
        #: How often it entered C_Login.
        self.logins = 0
        #: It has said what cannot be understood: what comes behind may be about any call.
        self._is_out_of_step = False

    @classmethod
    async def spawn(cls, name: str, variables: Mapping[str, str]) -> "WorkerProcess":
        """Start the process.

        Args:
            name: Of its token, for messages.
            variables: What its module needs of the environment.

        Raises:
            TokenError: `token.crashed` if it cannot be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # never import from the current directory
                "-m",
                "privyseal.tokens.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=_environment(variables),
                start_new_session=True,  # Ctrl-C is for the supervisor, which ends its worker in order
            )
        except OSError as error:
            raise TokenError(
                "token.crashed", f"token {name!r}: its worker cannot be started: {error.strerror}"
            ) from error
        return cls(name, process)

    async def open(self, config: TokenConfig, pin: PinBuffer | None) -> None:
        """Tell it its token and have it load its module.

        Raises:
            TokenError: `token.module`, `token.failed`, `token.timeout`, `token.crashed`: then it must be killed.
        """
        call = frames.Open(config=config, pin_bytes=0 if pin is None else len(pin))
        await self.ask(call, pin=pin, call_seconds=config.start_seconds, sign_seconds=config.start_seconds)

    @property
    def is_alive(self) -> bool:
        """Whether it has not been seen to end."""
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send_ahead(self, call: frames.SignCall) -> None:
        """Send a call while the worker has another one; once that one is answered, `ask` for this one's answer."""
        if self._process.stdin is not None:
            self._process.stdin.write(frames.encode(call))  # a frame is small, and the pipe is empty

    async def ask(
        self,
        call: frames.Call,
        *,
        call_seconds: float,
        sign_seconds: float,
        pin: PinBuffer | None = None,
        was_sent: bool = False,
    ) -> frames.Answer:
        """Send a call and wait for its answer.

        Args:
            call: What to send.
            call_seconds: Deadline up to C_Sign.
            sign_seconds: Deadline from the moment that C_Sign, or C_GenerateKeyPair, is entered.
            pin: What follows the frame, straight from its locked page.
            was_sent: It was sent ahead.

        Raises:
            TokenError: What the worker answered with; `token.timeout`, `token.crashed`, `token.protocol`:
                then it is of no further use and must be killed. `begun` is true if C_Sign was entered.
        """
        self.function = ""
        seconds = call_seconds
        try:
            async with asyncio.timeout(seconds) as deadline:
                if not was_sent:
                    await self._send(call, pin)
                while isinstance(answer := await self._receive(), frames.Progress):
                    self.function = answer.function
                    self.logins += self.function == "C_Login"
                    if self.function in _LONG_FUNCTIONS:
                        seconds = sign_seconds
                        deadline.reschedule(asyncio.get_running_loop().time() + seconds)
        except TimeoutError as error:
            raise self._error("token.timeout", f"did not answer within {seconds:g} s") from error
        except (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError) as error:
            raise await self._crash() from error
        except TokenError:
            self._is_out_of_step = True
            raise
        if isinstance(answer, frames.Failure):
            raise answer.error(self._name)
        return answer

    async def began_behind(self) -> bool:
        """Whether a killed worker may have begun the call that was sent ahead, behind the one that it was killed for.

        What it said of it is in the pipe, behind an answer that came too late.
        """
        if self._is_out_of_step:
            return True
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                while isinstance(await self._receive(), frames.Progress):
                    pass
                while isinstance(answer := await self._receive(), frames.Progress):
                    if answer.function == "C_Sign":
                        return True
        except (asyncio.IncompleteReadError, ConnectionResetError, TimeoutError):
            return False
        except TokenError:  # a frame was cut where the deadline fell: nothing can be told from what is behind it
            return True
        return False

    async def kill(self) -> None:
        """End it at once, with whatever programs its module started."""
        if self._process.returncode is None:
            # Its process group, as it leads a session of its own.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._wait(_KILL_SECONDS)

    async def close(self, seconds: float) -> None:
        """Have it end its sessions and itself, in bounded time."""
        with contextlib.suppress(TokenError):
            await self.ask(frames.CloseCall(), call_seconds=seconds, sign_seconds=seconds)
            await self._wait(seconds)
        await self.kill()

    @property
    def _has_begun(self) -> bool:
        return self.function == "C_Sign"

    async def _send(self, call: frames.Call, pin: PinBuffer | None) -> None:
        pipe = self._process.stdin
        if pipe is None:
            raise TokenError("token.protocol", f"token {self._name!r}: its worker has no stdin")
        pipe.write(frames.encode(call))
        await pipe.drain()
        if pin is not None:
            # The pipe is empty, so the loop writes from this memory at once and buffers nothing.
            pipe.write(pin.view)
            await pipe.drain()

    async def _receive(self) -> frames.Answer:
        pipe = self._process.stdout
        if pipe is None:
            raise TokenError("token.protocol", f"token {self._name!r}: its worker has no stdout")
        header = await pipe.readexactly(frames.HEADER_BYTES)
        return frames.decode_answer(await pipe.readexactly(frames.frame_length(header)))

    async def _crash(self) -> TokenError:
        await self._wait(_KILL_SECONDS)
        status = self._process.returncode
        if status is None:
            end = "closed its pipes"
        elif status < 0:
            end = f"was ended by {_signal_name(-status)}"
        else:
            end = f"ended with status {status}"
        return self._error("token.crashed", end)

    def _error(self, code: str, what: str) -> TokenError:
        where = f" in {self.function}" if self.function else ""
        return TokenError(
            code,
            f"token {self._name!r}: the worker process {what}{where}",
            hint="a new worker is started with the next call; if this repeats, re-insert the token",
            function=self.function,
            begun=self._has_begun,
        )

    async def _wait(self, seconds: float) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | dict(extra)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
