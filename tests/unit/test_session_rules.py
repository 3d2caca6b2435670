# SPDX-License-Identifier: Apache-2.0
"""The rules of tests/conftest.py hold: each is tried by a pytest run on a small folder of tests."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SKIPS = """
import pytest

def test_runs():
    assert True

@pytest.mark.skipif(True, reason="no such program")
def test_skips():
    assert False
"""


def run(
    folder: Path, source: str, *, kind: str = "unit", more: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    tests = folder / "tests" / kind
    tests.mkdir(parents=True)
    shutil.copy(CONFTEST, folder / "tests")
    (tests / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text(
        f"[pytest]\nasyncio_mode = auto\npythonpath = {CONFTEST.parent}\nmarkers =\n  interop: judged by others\n"
    )
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"CI", "PRIVYSEAL_VECTORS"} and not name.startswith("PYTEST_")
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more, "tests"],
        cwd=folder,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_skip_is_no_failure_at_home(tmp_path: Path) -> None:
    result = run(tmp_path, SKIPS)

    assert result.returncode == 0, result.stdout
    assert "1 passed, 1 skipped" in result.stdout


@pytest.mark.parametrize("more", [(), ("-n", "2", "--dist", "loadfile")], ids=["one process", "two"])
@pytest.mark.parametrize(
    "source", [SKIPS, "import pytest\npytest.importorskip('no_such_module')"], ids=["test", "module"]
)
def test_a_skip_fails_in_ci(tmp_path: Path, source: str, more: tuple[str, ...]) -> None:
    result = run(tmp_path, source, more=more, CI="true")

    assert result.returncode == 1, result.stdout
    assert "CI must not skip tests/unit/test_it.py" in result.stdout


def test_absent_vectors_are_the_one_skip_that_ci_accepts(tmp_path: Path) -> None:
    source = "def test_it(vectors): assert vectors\ndef test_other(): pass"

    assert run(tmp_path / "absent", source, CI="true").returncode == 0
    assert run(tmp_path / "there", source, CI="true", PRIVYSEAL_VECTORS=str(tmp_path)).returncode == 0


def test_vectors_that_are_there_must_be_used(tmp_path: Path) -> None:
    source = "import pytest\ndef test_it(): pytest.skip('PRIVYSEAL_VECTORS')"

    assert run(tmp_path, source, CI="true", PRIVYSEAL_VECTORS=str(tmp_path)).returncode == 1


def test_ci_accepts_no_skipped_interop_test(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.interop\ndef test_it(): pytest.skip('PRIVYSEAL_VECTORS')"

    result = run(tmp_path, source, kind="interop", CI="true")

    assert result.returncode == 1, result.stdout
    assert "CI must not skip interop test" in result.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(): assert False"

    assert run(tmp_path, source, CI="true").returncode == 0


SOCKETS = """
import asyncio, socket, warnings
import pytest, pytest_socket

async def test_a_loop_runs():
    await asyncio.sleep(0)

@pytest.mark.filterwarnings("ignore")
def test_no_socket():
    with pytest.raises(pytest_socket.SocketBlockedError):
        socket.create_connection(("127.0.0.1", 9))
"""

HOSTS = """
import socket
import pytest, pytest_socket

def test_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()

@pytest.mark.filterwarnings("ignore")
def test_nowhere_else():
    with pytest.raises(pytest_socket.SocketConnectBlockedError):
        socket.create_connection(("192.0.2.1", 9), timeout=1)
"""


@pytest.mark.parametrize(("kind", "source"), [("unit", SOCKETS), ("e2e", HOSTS)])
def test_unit_tests_open_no_socket_and_others_stay_on_loopback(tmp_path: Path, kind: str, source: str) -> None:
    result = run(tmp_path, source, kind=kind)

    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout
