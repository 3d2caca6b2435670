# SPDX-License-Identifier: Apache-2.0
"""Commands for the agent that runs in a directory, over its control socket."""

import socket
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from privyseal.agent.config import AgentFiles
from privyseal.agent.control_frames import (
    HEADER_BYTES,
    ControlAnswer,
    ControlRequest,
    decode,
    encode,
    frame_length,
    socket_address,
)
from privyseal.errors import ConfigError, UnavailableError
from privyseal.tokens.pin import PinBuffer
from privyseal.wire.api import error_from_problem

__all__ = ["agent_runs", "ask_agent"]

T = TypeVar("T")
_CONNECT_SECONDS: Final = 10.0
#: A command may wait for a token that is busy, and for the deadlines of several calls of it.
_ANSWER_SECONDS: Final = 900.0


def agent_runs(directory: Path) -> bool:
    """Whether an agent of this directory takes commands.

    Raises:
        ConfigError: `agent.socket`.
    """
    try:
        _connect(directory).close()
    except UnavailableError:
        return False
    return True


def ask_agent(
    directory: Path, command: str, arguments: msgspec.Struct, kind: type[T], *, pin: PinBuffer | None = None
) -> T:
    """Have the agent carry out a command; what it answers.

    Args:
        directory: The agent's.
        command: Its name.
        arguments: What it is given.
        kind: What it answers with.
        pin: A PIN that goes with it, straight from its locked page.

    Raises:
        UnavailableError: `agent.not_running`, `agent.no_answer`. ConfigError: `agent.socket`.
        PrivysealError: what the agent answered.
    """
    request = ControlRequest(
        command=command,
        arguments=msgspec.Raw(msgspec.json.encode(arguments)),
        pin_bytes=0 if pin is None else len(pin),
    )
    with _connect(directory) as connection:
        try:
            connection.sendall(encode(request))
            if pin is not None:
                connection.sendall(pin.view)
            connection.settimeout(_ANSWER_SECONDS)
            body = _exactly(connection, frame_length(_exactly(connection, HEADER_BYTES)))
        except OSError as error:
            raise UnavailableError(
                "agent.no_answer",
                f"the agent in {directory} took the command and did not answer: {error}",
                hint="what became of it stands in the agent's log",
            ) from error
    answer = decode(body, ControlAnswer)
    if answer.error is not None:
        raise error_from_problem(answer.error)
    return decode(answer.answer, kind)


def _connect(directory: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_SECONDS)
    path = AgentFiles(directory).control.absolute()
    try:
        with socket_address(path) as address:
            connection.connect(address)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise UnavailableError(
            "agent.not_running",
            f"no agent runs in {directory}",
            hint=f"privyseal agent run --dir {directory}",
        ) from error
    except OSError as error:
        connection.close()
        raise ConfigError(
            "agent.socket",
            f"the agent's socket {path} cannot be used: {error.strerror or error}",
            hint="run this as the user that runs the agent, or as root",
        ) from error
    return connection


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionResetError("the agent hung up")
        data += part
    return bytes(data)
