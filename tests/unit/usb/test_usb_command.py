# SPDX-License-Identifier: Apache-2.0
"""Configured commands: real programs that work, hang, fork, flood, fail and are missing."""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

import pytest

from privyseal.errors import ConfigError, TokenError
from privyseal.usb.command import TAIL_BYTES, run_command


def program(text: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", text)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def run(*arguments: str, seconds: float = 60) -> bytes:
    return (await run_command(arguments, name="restart pcscd", deadline_seconds=seconds)).output


async def test_it_runs_without_shell_input_and_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    told = await run(
        *program(
            "import json, os, sys; print(json.dumps([sys.argv[1:], sorted(os.environ), sys.stdin.read(), os.getcwd(),"
            " sorted(map(int, os.listdir('/proc/self/fd')))[:4]]))"
        ),
        "$HOME; `id`",
    )

    arguments, variables, read, folder, descriptors = json.loads(told)
    assert arguments == ["$HOME; `id`"]
    assert set(variables) <= {"PATH", "LANG", "LC_CTYPE"}
    assert (read, folder, descriptors) == ("", "/", [0, 1, 2, 3])  # 3 reads the list itself


async def test_a_program_is_found_in_the_directories_of_the_system() -> None:
    assert await run("echo", "done") == b"done\n"


async def test_only_the_end_of_a_flood_is_kept() -> None:
    told = await run(*program("import os\nfor _ in range(400): os.write(1, b'x' * 65536)\nos.write(2, b'the end')"))

    assert len(told) == TAIL_BYTES
    assert told.endswith(b"xxthe end")


async def test_an_endless_flood_ends_at_the_deadline() -> None:
    with pytest.raises(TokenError, match=r"did not end within 0\.5 s; it was killed: yyy"):
        await run(*program("import os\nwhile True: os.write(1, b'y' * 65536)"), seconds=0.5)


@pytest.mark.parametrize("ignored", ["", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "])
async def test_a_program_that_hangs_is_killed_with_what_it_started(tmp_path: Path, ignored: str) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    closed = asyncio.Event()
    # The program and its child hold the FIFO open; it says its end when both are gone.
    hold = f"os.open({str(held)!r}, os.O_WRONLY)"
    text = f"import os, signal; {ignored}{hold}; os.fork(); os.write(1, b'up'); signal.pause()"
    try:
        with pytest.raises(TokenError, match="it was killed: upup") as caught:
            await run(*program(text), seconds=1.5)
        asyncio.get_running_loop().add_reader(reader, closed.set)
        await asyncio.wait_for(closed.wait(), 30)
        assert os.read(reader, 1) == b""
    finally:
        asyncio.get_running_loop().remove_reader(reader)
        os.close(reader)

    assert caught.value.code == "command.timeout"
    assert not caught.value.begun


async def test_a_service_that_it_leaves_running_stays_and_is_not_waited_for(tmp_path: Path) -> None:
    release, held = tmp_path / "release", tmp_path / "held"
    for path in (release, held):
        os.mkfifo(path)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    service = (
        f"os.open({str(held)!r}, os.O_WRONLY); os.setsid(); os.write(1, b'ok'); os.write(up, b'.');"
        f" open({str(release)!r}).read()"
    )

    # The service keeps the command's stdout, as a careless one does; the command ends when the service runs, which has
    # left its process group by then.
    text = f"import os\nheard, up = os.pipe()\nif os.fork() == 0:\n {service}\nelse:\n os.read(heard, 1)"
    try:
        await asyncio.wait_for(run(*program(text)), 30)
        writer = await asyncio.to_thread(os.open, release, os.O_WRONLY)  # waits until the service reads

        loop.add_reader(reader, ended.set)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)  # the service runs, and holds it open
        os.close(writer)
        await asyncio.wait_for(ended.wait(), 30)
        assert os.read(reader, 1) == b""
    finally:
        loop.remove_reader(reader)
        os.close(reader)


async def test_cancelling_ends_it(tmp_path: Path) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    loop, up = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(reader, up.set)
    text = f"import os, signal; os.write(os.open({str(held)!r}, os.O_WRONLY), b'1'); signal.pause()"
    try:
        running = asyncio.create_task(run(*program(text), seconds=3600))
        await asyncio.wait_for(up.wait(), 30)
        assert os.read(reader, 1) == b"1"
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(running, 30)
        assert os.read(reader, 1) == b""  # nobody holds the FIFO any more
    finally:
        loop.remove_reader(reader)
        os.close(reader)


async def test_what_fails_says_its_last_words() -> None:
    with pytest.raises(TokenError, match=r"ended with status 3: no  \[31mpermission \[command.failed\]") as caught:
        await run(*program("import os; os.write(2, b'first\\nno \\x1b[31mpermission\\n\\n'); os._exit(3)"))

    assert caught.value.code == "command.failed"
    with pytest.raises(TokenError, match="ended with status -9 "):
        await run(*program("import os; os.kill(os.getpid(), 9)"))


async def test_what_cannot_be_started(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("true\n")
    empty: tuple[tuple[str, ...], ...] = ((), ("",), ("a\0b",))

    for arguments in (*empty, (str(tmp_path / "none"),), ("no-such-program-anywhere",), (str(file),), (str(tmp_path),)):
        with pytest.raises(ConfigError, match="the command to restart pcscd") as caught:
            await run(*arguments)
        assert caught.value.code == "command.missing"


async def test_nothing_stays_open() -> None:
    await run("true")
    before = open_files()

    for _ in range(5):
        await run("true")
        with pytest.raises(ConfigError):
            await run("no-such-program-anywhere")

    assert open_files() <= before
