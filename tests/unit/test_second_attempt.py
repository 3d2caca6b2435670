# SPDX-License-Identifier: Apache-2.0
"""Tests that failed beside others get one more attempt, alone; what fails then, or more than three, fails the run."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "second_attempt.py"
TESTS = """
from pathlib import Path

def test_holds_alone(): assert Path("quiet").exists()
def test_never(): assert False
def test_other(): assert Path("quiet").exists()
def test_another(): assert Path("quiet").exists()
def test_fourth(): assert Path("quiet").exists()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tmp_path


def attempt(place: Path, *names: str, status: int | None = None) -> subprocess.CompletedProcess[str]:
    """A first attempt in which these tests fail, and what the tool makes of it."""
    ids = [f"test_some.py::{name}" for name in names]
    first = subprocess.run([sys.executable, "-m", "pytest", "-q", *ids], cwd=place, capture_output=True, check=False)
    assert first.returncode == 1
    (place / "quiet").touch()
    given = str(first.returncode if status is None else status)
    return subprocess.run([sys.executable, TOOL, given], cwd=place, capture_output=True, text=True, check=False)


def test_one_that_holds_alone_is_named_and_the_run_goes_on(place: Path) -> None:
    second = attempt(place, "test_holds_alone")
    assert second.returncode == 0
    assert "held alone, failed beside others: test_some.py::test_holds_alone" in second.stdout


def test_one_that_fails_twice_fails_the_run(place: Path) -> None:
    second = attempt(place, "test_holds_alone", "test_never")
    assert second.returncode == 1
    assert "failed twice" in second.stdout


def test_more_than_three_get_no_second_attempt(place: Path) -> None:
    second = attempt(place, "test_holds_alone", "test_other", "test_another", "test_fourth")
    assert (second.returncode, second.stdout) == (1, "")


@pytest.mark.parametrize("status", [2, 3, 5])
def test_a_run_that_did_not_end_is_final(place: Path, status: int) -> None:
    second = attempt(place, "test_holds_alone", status=status)
    assert (second.returncode, second.stdout) == (status, "")


def test_without_a_record_of_failures_there_is_nothing_to_attempt(place: Path) -> None:
    done = subprocess.run([sys.executable, TOOL, "1"], cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
