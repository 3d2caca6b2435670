# SPDX-License-Identifier: Apache-2.0
"""Interrupted at any moment: exit code 130 within a moment, every file as it was, nothing beside it."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from installation import Up
from lying_hub import PROFILE
from lying_web import Answer, WebHub, running_hub
from pe_samples import make_pe
from programs import command, environment, succeeded, unchanged, until
from tsa_samples import Behaviour, busy, hang, running_tsa

PROMPTLY_SECONDS = 5.0
LARGE_BYTES = 1 << 28


@contextmanager
def interrupted(
    arguments: tuple[str | Path, ...], config: Path, began: Callable[[], object], number: signal.Signals
) -> Iterator[None]:
    """Run a command, interrupt it when it has come to where it shall be; it must end well, and soon."""
    running = subprocess.Popen(
        command(*arguments),
        env=environment(config.parent, config),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=config.parent,
    )
    try:
        until(began, "the moment to interrupt")
        yield
        running.send_signal(number)
        sent_at = time.monotonic()
        out, said = running.communicate(timeout=60)
    finally:
        running.kill()
    # CPython ends by SIGINT itself, which shells call 130, if the signal came while it made a class of an import.
    assert running.returncode in {130, -signal.SIGINT}, said
    assert said.splitlines()[-1] == b"interrupted", said
    assert b"Traceback" not in said
    assert out == b""
    assert time.monotonic() - sent_at < PROMPTLY_SECONDS


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WebHub]:
    (tmp_path / "hub").mkdir()
    with running_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.mark.parametrize("behaviour", [hang, busy("60")], ids=["silent", "busy"])
@pytest.mark.parametrize(
    ("verb", "number"), [("one", signal.SIGINT), ("all", signal.SIGTERM), ("timestamp", signal.SIGINT)]
)
def test_while_a_tsa_is_waited_for(up: Up, app: Path, verb: str, behaviour: Behaviour, number: signal.Signals) -> None:
    files = [app]
    if verb != "one":
        files.append(app.with_name("second.exe"))
        files[1].write_bytes(app.read_bytes() + b"12345678")
    given: tuple[str | Path, ...] = ("sign", "--key", "demo")
    if verb == "timestamp":
        succeeded(up.run(*given, *files))
        given = ("timestamp",)
    with running_tsa(behaviour) as host, unchanged(*files):
        asked = (*given, "--timestamp", host.url, *files)
        with interrupted(asked, up.client().path, lambda: host.requests, number):
            pass


@pytest.mark.parametrize("what", ["/v1/profiles/", "/v1/signatures"])
def test_while_the_hub_is_waited_for(hub: WebHub, app: Path, what: str) -> None:
    asked: list[str] = []

    def answer(line: str) -> Answer | None:
        if what not in line:
            return None
        asked.append(line)
        return Answer(pieces=hub.drip)

    hub.answer = answer
    with unchanged(app), interrupted(("sign", "--key", PROFILE, app), hub.config.path, lambda: asked, signal.SIGINT):
        pass


def test_while_a_large_file_is_read_and_copied(hub: WebHub, tmp_path: Path) -> None:
    folder = tmp_path / "dist"
    folder.mkdir()
    file = folder / "large.exe"
    with file.open("wb") as stream:
        stream.write(make_pe())
        stream.truncate(LARGE_BYTES)
    before = file.stat()
    hub.answer = lambda _: Answer(pieces=hub.drip)  # it does not come to an end by itself

    with interrupted(
        ("sign", "--key", PROFILE, file),
        hub.config.path,
        lambda: [path for path in folder.iterdir() if path != file and path.stat().st_size],
        signal.SIGINT,
    ):
        pass

    assert list(folder.iterdir()) == [file]
    now = file.stat()
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    file.unlink()
