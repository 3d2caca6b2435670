# SPDX-License-Identifier: Apache-2.0
"""The control socket of a running agent: commands of the people on its host, one request a connection.

`control.sock` lies in the agent's directory, mode 0600. Whoever connects must be the agent's own account or root;
whoever is may read the agent's keys anyway, so commands need no other permission.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from privyseal.agent.control_frames import (
    HEADER_BYTES,
    ControlAnswer,
    ControlRequest,
    decode,
    encode,
    frame_length,
    socket_address,
)
from privyseal.errors import ConfigError, DeniedError, MalformedInputError, PrivysealError, UnavailableError
from privyseal.tokens.pin import MAX_PIN_BYTES, PinBuffer
from privyseal.wire.api import problem_from_error

__all__ = ["ControlCall", "ControlHandler", "ControlSocket", "named"]

T = TypeVar("T")
_LOG: Final = structlog.get_logger("privyseal.agent.control")
_REQUEST_SECONDS: Final = 10.0
_AT_ONCE: Final = 8
_PAUSE_SECONDS: Final = 1.0
#: struct ucred of unix(7): pid, uid, gid.
_PEER: Final = struct.Struct("iII")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCall:
    """One command on its way to its handler.

    Attributes:
        arguments: What the command was given, as JSON.
        pin: A PIN that came with it, or None; wiped once the handler has returned, so whoever keeps it copies it.
    """

    arguments: msgspec.Raw
    pin: PinBuffer | None

    def given(self, kind: type[T]) -> T:
        """The arguments.

        Raises:
            MalformedInputError: `control.malformed`.
        """
        return decode(self.arguments, kind)


#: Carries out a command and answers with what its client wants to know; raises PrivysealError.
ControlHandler = Callable[[ControlCall], Awaitable[msgspec.Struct]]


def named(tokens: Mapping[str, T], name: str) -> T:
    """What an agent has of the token that somebody means.

    Raises:
        ConfigError: `token.unknown`.
    """
    token = tokens.get(name)
    if token is None:
        known = ", ".join(tokens) or "none"
        raise ConfigError(
            "token.unknown",
            f"the agent that runs knows no token {name!r}; it knows {known}",
            hint="after a change of agent.toml the agent must be restarted",
        )
    return token


class ControlSocket:
    """Serves commands at a socket file until it is closed.

    A request must arrive within its deadline; its handler has those of what it does, and goes on if its client leaves.
    """

    def __init__(
        self, path: Path, handlers: Mapping[str, ControlHandler], *, request_seconds: float = _REQUEST_SECONDS
    ) -> None:
        self._path = path
        self._handlers = handlers
        self._request_seconds = request_seconds
        self._listening: socket.socket | None = None
        self._inode = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Listen. What an agent that was killed left at the path is replaced.

        Raises:
            ConfigError: `agent.socket_path`, `agent.socket`.
        """
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            fresh.unlink(missing_ok=True)
            with socket_address(fresh) as address:
                listening.bind(address)
            # Until it listens nobody can connect, and it has its name only then.
            fresh.chmod(0o600)
            listening.listen(_AT_ONCE)
            listening.settimeout(0)
            self._inode = fresh.stat().st_ino
            fresh.replace(self._path)
        except (OSError, ConfigError) as error:
            listening.close()
            if isinstance(error, ConfigError):
                raise
            raise ConfigError("agent.socket", f"the agent cannot listen at {self._path}: {error.strerror}") from error
        self._listening = listening
        self._listen()

    async def close(self) -> None:
        """Take no more commands; those that run are ended."""
        listening, self._listening = self._listening, None
        if listening is None:
            return
        asyncio.get_running_loop().remove_reader(listening)
        listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            # Another agent of this directory may have put its own in place.
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def _take(self, listening: socket.socket) -> None:
        """Called when somebody waits to be taken."""
        try:
            connection, _ = listening.accept()
        except BlockingIOError:  # gone again
            return
        except OSError as error:  # too many files are open
            _LOG.warning("no command can be taken", reason=str(error))
            asyncio.get_running_loop().remove_reader(listening)
            asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._listen)
            return
        connection.settimeout(0)
        task = asyncio.create_task(self._serve(connection), name="agent control")
        self._tasks.add(task)
        task.add_done_callback(partial(self._served, connection))
        if len(self._tasks) >= _AT_ONCE:
            asyncio.get_running_loop().remove_reader(listening)

    def _served(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        """Also for a task that was cancelled before it began."""
        connection.close()
        self._tasks.discard(task)
        self._listen()

    def _listen(self) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._take, self._listening)

    async def _serve(self, connection: socket.socket) -> None:
        answer = await self._answer(connection)
        with contextlib.suppress(OSError, TimeoutError):  # whoever asked has gone
            async with asyncio.timeout(self._request_seconds):
                await asyncio.get_running_loop().sock_sendall(connection, encode(answer))

    async def _answer(self, connection: socket.socket) -> ControlAnswer:
        pin: PinBuffer | None = None
        error: PrivysealError
        try:
            _check_peer(connection)
            try:
                async with asyncio.timeout(self._request_seconds):
                    request = decode(await _frame(connection), ControlRequest)
                    pin = await _pin(connection, request.pin_bytes)
            except TimeoutError as late:
                raise MalformedInputError(
                    "control.late", f"the request did not arrive within {self._request_seconds:g} s"
                ) from late
            return await self._carry_out(request, pin)
        except PrivysealError as refused:
            error = refused
        except OSError as broken:
            error = MalformedInputError("control.malformed", f"the request broke off: {broken}")
        except Exception as unforeseen:  # noqa: BLE001 - the boundary of a request
            _LOG.exception("a command failed in a way that nobody foresaw")
            error = UnavailableError("agent.internal", f"the command failed with {type(unforeseen).__name__}")
        finally:
            if pin is not None:
                pin.wipe()
        return ControlAnswer(error=problem_from_error(error))

    async def _carry_out(self, request: ControlRequest, pin: PinBuffer | None) -> ControlAnswer:
        handler = self._handlers.get(request.command)
        if handler is None:
            raise ConfigError(
                "control.command",
                f"the agent that runs here knows no command {request.command!r}",
                hint="it is of another release than this program: restart it",
            )
        answer = await handler(ControlCall(arguments=request.arguments, pin=pin))
        return ControlAnswer(answer=msgspec.Raw(msgspec.json.encode(answer)))


def _check_peer(connection: socket.socket) -> None:
    """The other end is our own account or root; where the system does not tell, the file's mode has said so."""
    kind = getattr(socket, "SO_PEERCRED", None)
    if kind is None:
        return
    _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, kind, _PEER.size))
    if uid not in (0, os.geteuid()):
        raise DeniedError("control.peer", f"user {uid} may not give orders to an agent of user {os.geteuid()}")


async def _frame(connection: socket.socket) -> bytes:
    return await _exactly(connection, frame_length(await _exactly(connection, HEADER_BYTES)))


async def _exactly(connection: socket.socket, length: int) -> bytes:
    """Not a byte more is taken from the socket: a PIN may come behind."""
    data = bytearray()
    while len(data) < length:
        part = await asyncio.get_running_loop().sock_recv(connection, length - len(data))
        if not part:
            raise MalformedInputError("control.malformed", "the request ended early")
        data += part
    return bytes(data)


async def _pin(connection: socket.socket, length: int) -> PinBuffer | None:
    if length == 0:
        return None
    if not 0 < length <= MAX_PIN_BYTES:
        raise MalformedInputError("control.malformed", f"no PIN has {length} bytes")
    loop = asyncio.get_running_loop()
    pin = PinBuffer()
    try:
        await pin.receive(lambda room: loop.sock_recv_into(connection, room), length)
    except BaseException:
        pin.wipe()
        raise
    return pin
