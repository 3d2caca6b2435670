# SPDX-License-Identifier: Apache-2.0
"""Privyseal's programs as other processes: run to their end, or kept running; judged by exit code, words and files."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

__all__ = [
    "Outcome",
    "Running",
    "child_pids",
    "command",
    "environment",
    "privyseal",
    "refused",
    "succeeded",
    "unchanged",
    "until",
]

T = TypeVar("T")
DEADLINE_SECONDS = 30.0
_LOOK_SECONDS = 0.02
_SOURCES = Path(__file__).parents[1] / "src"


def until(look: Callable[[], T | None], what: str, seconds: float = DEADLINE_SECONDS) -> T:
    """The first true answer of `look`: what happens in another process gives no event to wait for."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(_LOOK_SECONDS)
    return found


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "privyseal.cli.main", *map(str, arguments)]


def environment(home: Path, config: Path | None = None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any configuration that lies around on this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PRIVYSEAL_", "XDG_"))}
    kept |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "PYTHONPATH": str(_SOURCES)}
    if config is not None:
        kept["PRIVYSEAL_CONFIG"] = str(config)
    return kept | dict(more or {})


def child_pids(pid: int) -> list[int]:
    """The children of a process's threads; what ends during the look, a thread or the whole process, has none."""
    found: list[int] = []
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return found
    for thread in threads:
        with suppress(OSError):
            found += map(int, (thread / "children").read_text().split())
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that `--json` prints."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


def privyseal(
    *arguments: str | Path,
    config: Path | None = None,
    cwd: Path | None = None,
    more: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
    told: str = "",
) -> Outcome:
    """Run a command to its end; without a terminal, `told` is its standard input."""
    home = Path.cwd() if cwd is None else cwd
    done = subprocess.run(
        command(*arguments),
        env=environment(home, config, more),
        cwd=cwd,
        input=told.encode(),
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=before,
    )
    return Outcome(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


def succeeded(outcome: Outcome) -> Outcome:
    assert outcome.code == 0, outcome
    assert "Traceback" not in outcome.err, outcome.err
    return outcome


def refused(outcome: Outcome, status: int, code: str) -> Outcome:
    """The program ended with this exit code, for this reason, in words (and in JSON, if it was asked for that)."""
    assert "Traceback" not in outcome.err, outcome.err
    said = [line for line in outcome.err.splitlines() if line.startswith("privyseal: ")]
    assert [re.findall(r"\[([a-z0-9_.]+)\]$", line) for line in said] == [[code]], outcome
    assert outcome.code == status, outcome
    if outcome.out.startswith("failed "):
        return outcome  # `verify` tells people what it knows of a file also if that does not verify
    if outcome.out:
        error = outcome.document["error"]
        assert (error["code"], error["exit"]) == (code, status)
        assert error["message"]
    return outcome


def _state(file: Path) -> object:
    try:
        return file.read_bytes() if file.is_file() else file.exists()
    except OSError as error:
        return error.errno


@contextmanager
def unchanged(*files: Path) -> Iterator[None]:
    """What the block does leaves these files (or their absence) and the names beside them as they were."""

    def look() -> dict[Path, object]:
        seen: dict[Path, object] = {file: _state(file) for file in files}
        beside = {file.parent for file in files if file.parent.is_dir()}
        return seen | {folder: sorted(path.name for path in folder.iterdir()) for folder in beside}

    before = look()
    yield
    assert look() == before


class Running:
    """A program that goes on running; what it says is kept in files, across restarts."""

    def __init__(self, *arguments: str | Path, said: Path, more: Mapping[str, str] | None = None) -> None:
        self.out, self.err = said.with_suffix(".out"), said.with_suffix(".err")
        self._begin = self.err.stat().st_size if self.err.exists() else 0
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self.process = subprocess.Popen(
                command(*arguments),
                env=environment(said.parent, more=more),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def log(self) -> str:
        """What this process has said on stderr."""
        return self.err.read_bytes()[self._begin :].decode()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log so far, line by line."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]

    def until_event(self, **wanted: object) -> dict[str, Any]:
        """The first log line with these fields."""

        def look() -> dict[str, Any] | None:
            found = next((event for event in self.events if event.items() >= wanted.items()), None)
            if found is None and self.process.poll() is not None:
                pytest.fail(f"ended with {self.process.returncode} before {wanted}:\n{self.log}")
            return found

        return until(look, f"log line {wanted}")

    @property
    def children(self) -> list[int]:
        """Process ids of its children."""
        return child_pids(self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Ask it to end (SIGTERM) and wait until it has."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=DEADLINE_SECONDS)

    def stop(self) -> None:
        """Ask it to end; it must end well."""
        assert self.end() == 0, self.log
        assert "Traceback" not in self.log, self.log

    def kill(self) -> None:
        """End it as a loss of power would, with the worker processes below it."""
        for pid in [self.process.pid, *self.children]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=DEADLINE_SECONDS)
