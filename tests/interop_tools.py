# SPDX-License-Identifier: Apache-2.0
"""Programs that judge our work: a missing one skips the test, or fails it where CI is set."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["require_program", "run_program"]

PROGRAM_TIMEOUT_SECONDS = 60


def require_program(name: str) -> str:
    """The path of a program."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed: see requirements/system.txt"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


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
