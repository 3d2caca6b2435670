# SPDX-License-Identifier: Apache-2.0
"""Programs that judge our work: a missing one skips the test, or fails it where CI is set."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["require_file", "require_program", "run_program"]

PROGRAM_TIMEOUT_SECONDS = 60


def require_program(name: str) -> str:
    """The path of a program."""
    path = shutil.which(name)
    if path is None:
        _missing(name)
    return path


def require_file(pattern: str, name: str) -> Path:
    """The file that a package installs somewhere below the root: `/` and a glob."""
    found = sorted(Path("/").glob(pattern.removeprefix("/")))
    if not found:
        _missing(name)
    return found[-1]


def _missing(name: str) -> NoReturn:
    reason = f"{name} is not installed: see requirements/system.txt"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run_program(name: str, *arguments: str | Path) -> tuple[int, str]:
    """Exit status, and what it said on stdout and stderr together."""
    done = subprocess.run(
        [require_program(name), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PROGRAM_TIMEOUT_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")
