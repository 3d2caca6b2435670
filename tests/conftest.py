# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: which sockets it may open, how hypothesis searches, what CI may skip."""

import os
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from postgres_server import PostgresServer, running_postgres

TESTS = Path(__file__).parent
IN_CI = bool(os.environ.get("CI"))

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
hypothesis.settings.load_profile("ci" if IN_CI else "dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A test or module that was skipped."""

    name: str
    reason: str
    interop: bool


#: Skips that CI accepts: pattern of the reason, and why. An `interop` test is never accepted.
ACCEPTED_SKIPS: tuple[tuple[str, str], ...] = ()
if "PRIVYSEAL_VECTORS" not in os.environ:
    ACCEPTED_SKIPS += ((r"\bPRIVYSEAL_VECTORS\b", "the vectors are given beside the checkout, or not at all"),)


def unexplained(skips: Iterable[Skip]) -> list[Skip]:
    """The skips that must not stand in CI."""
    return [
        skip
        for skip in skips
        if skip.interop or not any(re.search(pattern, skip.reason) for pattern, _ in ACCEPTED_SKIPS)
    ]


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of test vectors that is not part of the project."""
    folder = os.environ.get("PRIVYSEAL_VECTORS")
    if not folder:
        pytest.skip("PRIVYSEAL_VECTORS is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; each test makes its own database in it."""
    with running_postgres() as server:
        yield server


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Run in the background, or under nohup: the programs that tests interrupt would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.option.allow_unix_socket = True  # pytest-socket's option; asyncio wakes its loop through a socket pair


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Unit tests open no socket; all others stay on this machine."""
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue
        kind = item.path.relative_to(TESTS).parts[0]
        item.add_marker(
            pytest.mark.disable_socket if kind == "unit" else pytest.mark.allow_hosts(["127.0.0.1", "::1", "localhost"])
        )


class SkipCheck:
    """Collects skips; in CI an unexplained one fails the run."""

    def __init__(self) -> None:
        self.skips: list[Skip] = []

    def _note(self, report: pytest.TestReport | pytest.CollectReport, *, interop: bool) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skips.append(Skip(name=report.nodeid, reason=reason, interop=interop))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report, interop="interop" in report.keywords)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report, interop=report.nodeid.startswith("tests/interop/"))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if unexplained(self.skips) and session.exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for skip in unexplained(self.skips):
            mark = "interop test " if skip.interop else ""
            terminalreporter.write_line(f"CI must not skip {mark}{skip.name}: {skip.reason}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if IN_CI:
        session.config.pluginmanager.register(SkipCheck(), "skip-check")
