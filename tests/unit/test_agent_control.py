# SPDX-License-Identifier: Apache-2.0
"""The control socket of an agent: who is answered, what is refused, and that a PIN goes past all JSON."""

import asyncio
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from privyseal.agent.control import ControlCall, ControlSocket
from privyseal.agent.control_frames import MAX_FRAME_BYTES
from privyseal.cli.agent_control import agent_runs, ask_agent
from privyseal.errors import ConfigError, PrivysealError, TokenError
from privyseal.tokens.pin import PinBuffer

PIN = b"canary-socket-99"


class Given(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    number: int


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    double: int
    pin: bool


class Served:
    """Two commands, and the PIN that came last."""

    def __init__(self) -> None:
        self.pin: PinBuffer | None = None
        self.seen = b""
        self.entered = asyncio.Event()
        self.leave = asyncio.Event()

    async def double(self, call: ControlCall) -> Heard:
        self.pin = call.pin
        self.seen = b"" if call.pin is None else bytes(call.pin.view)
        return Heard(double=2 * call.given(Given).number, pin=call.pin is not None)

    async def fail(self, call: ControlCall) -> Heard:
        raise TokenError("token.not_found", "it is away", hint="bring it back")

    async def break_(self, call: ControlCall) -> Heard:
        raise KeyError("unforeseen")

    async def wait(self, call: ControlCall) -> Heard:
        self.entered.set()
        await self.leave.wait()
        return Heard(double=0, pin=False)


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture
async def control(tmp_path: Path, served: Served) -> AsyncIterator[ControlSocket]:
    handlers = {"double": served.double, "fail": served.fail, "break": served.break_, "wait": served.wait}
    opened = ControlSocket(tmp_path / "control.sock", handlers, request_seconds=0.5)
    opened.open()
    yield opened
    await opened.close()


async def ask(directory: Path, command: str, number: Any = 21, *, pin: bytes = b"") -> Heard:
    buffer = PinBuffer()
    if pin:
        buffer.fill(pin)

    def blocking() -> Heard:
        given = Given(number=number)
        return ask_agent(directory, command, given, Heard, pin=buffer if pin else None)

    return await asyncio.to_thread(blocking)


async def refusal(directory: Path, command: str, number: Any = 21) -> PrivysealError:
    with pytest.raises(PrivysealError) as caught:
        await ask(directory, command, number)
    return caught.value


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


async def told(directory: Path, data: bytes, *, hang_up: bool = True) -> str:
    """The code of the answer to raw bytes."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/control.sock")
    finally:
        os.close(descriptor)
    writer.write(data)
    if hang_up:
        writer.write_eof()
    header = await reader.readexactly(4)
    answer = json.loads(await reader.readexactly(int.from_bytes(header, "big")))
    writer.close()
    code: str = answer["error"]["code"]
    return code


async def test_a_command_is_carried_out(tmp_path: Path, control: ControlSocket, served: Served) -> None:
    assert await ask(tmp_path, "double") == Heard(double=42, pin=False)
    assert served.pin is None


async def test_a_pin_comes_in_locked_memory_and_is_wiped(
    tmp_path: Path, control: ControlSocket, served: Served
) -> None:
    assert await ask(tmp_path, "double", pin=PIN) == Heard(double=42, pin=True)

    assert served.seen == PIN
    assert served.pin is not None
    assert len(served.pin) == 0


def names(directory: Path) -> list[str]:
    return [one.name for one in directory.iterdir()]


async def test_the_socket_is_for_its_owner_alone_and_goes_with_the_agent(tmp_path: Path, served: Served) -> None:
    path = tmp_path / "control.sock"
    control = ControlSocket(path, {"double": served.double})
    assert not agent_runs(tmp_path)
    control.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert await asyncio.to_thread(agent_runs, tmp_path)
    assert names(tmp_path) == ["control.sock"]

    await control.close()

    assert names(tmp_path) == []
    assert (await refusal(tmp_path, "double")).code == "agent.not_running"


async def test_what_a_killed_agent_left_is_replaced(tmp_path: Path, served: Served) -> None:
    left = socket.socket(socket.AF_UNIX)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    left.bind(f"/proc/self/fd/{descriptor}/control.sock")
    os.close(descriptor)
    left.close()
    assert (await refusal(tmp_path, "double")).code == "agent.not_running"

    control = ControlSocket(tmp_path / "control.sock", {"double": served.double})
    control.open()
    assert (await ask(tmp_path, "double")).double == 42
    await control.close()


async def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path, served: Served) -> None:
    first, second = (ControlSocket(tmp_path / "control.sock", {"double": served.double}) for _ in range(2))
    first.open()
    second.open()
    await first.close()

    assert (await ask(tmp_path, "double")).double == 42
    await second.close()


async def test_a_long_path_is_no_hindrance(tmp_path: Path, served: Served) -> None:
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    control = ControlSocket(directory / "control.sock", {"double": served.double})
    control.open()
    assert (await ask(directory, "double")).double == 42
    await control.close()


def test_a_directory_that_is_not_there_is_named(tmp_path: Path, served: Served) -> None:
    with pytest.raises(ConfigError) as caught:
        ControlSocket(tmp_path / "none" / "control.sock", {}).open()
    assert caught.value.code == "agent.socket"


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        ("halve", 1, "control.command"),
        ("double", "text", "control.malformed"),
        ("fail", 1, "token.not_found"),
        ("break", 1, "agent.internal"),
    ],
)
async def test_refusals_say_why(
    tmp_path: Path, control: ControlSocket, command: str, number: object, code: str
) -> None:
    error = await refusal(tmp_path, command, number)

    assert error.code == code
    assert "unforeseen" not in str(error)
    assert (await ask(tmp_path, "double")).double == 42, "the next one is served"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "control.malformed"),
        (b"\x00\x00", "control.malformed"),
        (struct.pack(">I", MAX_FRAME_BYTES + 1), "control.malformed"),
        (struct.pack(">I", 50) + b"{}", "control.malformed"),
        (frame(b"{}"), "control.malformed"),
        (frame(b"\xff"), "control.malformed"),
        (frame(b"[" * 60_000), "control.malformed"),
        (frame(b'{"command":"double","pin":"1234"}'), "control.malformed"),
        (frame(b'{"command":"double","pin_bytes":-1}'), "control.malformed"),
        (frame(b'{"command":"double","pin_bytes":256}'), "control.malformed"),
        (frame(b'{"command":"double","pin_bytes":4}') + b"123", "token.pin_missing"),
        (frame(b'{"command":"double","pin_bytes":4}') + b"1\n34", "token.pin_file"),
        (frame(b'{"command":"double","arguments":[]}'), "control.malformed"),
    ],
)
async def test_whatever_else_comes_is_refused(tmp_path: Path, control: ControlSocket, data: bytes, code: str) -> None:
    assert await told(tmp_path, data) == code


@pytest.mark.parametrize(
    "data", [b"", b"\x00", frame(b'{"command":"double"}')[:-1], frame(b'{"command":"double","pin_bytes":4}') + b"12"]
)
async def test_a_request_that_does_not_end_is_not_waited_for(
    tmp_path: Path, control: ControlSocket, data: bytes
) -> None:
    assert await told(tmp_path, data, hang_up=False) == "control.late"


async def test_whoever_leaves_leaves_the_command_running(
    tmp_path: Path, control: ControlSocket, served: Served
) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    _, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/control.sock")
    os.close(descriptor)
    writer.write(frame(b'{"command":"wait"}'))
    await served.entered.wait()
    writer.close()
    await writer.wait_closed()
    served.leave.set()

    assert (await ask(tmp_path, "double")).double == 42


async def test_another_user_is_refused(control: ControlSocket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        code = await asyncio.to_thread(asked_by_nobody, tmp_path)
    else:  # nobody else can be had: the agent is taken for another user's
        monkeypatch.setattr(os, "geteuid", lambda: 65533)
        code = (await refusal(tmp_path, "double")).code

    assert code == "control.peer"


def asked_by_nobody(directory: Path) -> str:
    """What the socket answers to another user, who was let through to it."""
    for place in (directory, *directory.parents[:-1]):
        if place.stat().st_uid == 0:
            place.chmod(place.stat().st_mode | 0o011)
    (directory / "control.sock").chmod(0o666)
    program = (
        f"import os, socket; os.chdir({str(directory)!r}); os.setuid(65534)\n"
        "one = socket.socket(socket.AF_UNIX); one.connect('control.sock'); print(one.recv(4096)[4:].decode())\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, timeout=30)
    code: str = json.loads(done.stdout)["error"]["code"]
    return code
