# SPDX-License-Identifier: Apache-2.0
"""docs/monitoring.md: its commands run as they stand at an installation, and its events are those that programs log."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from installation import Up, running_up
from interop_tools import require_program
from pages import ROOT, blocks
from programs import environment

PAGE = ROOT / "docs" / "monitoring.md"
#: In place of a person who types Ctrl-C.
LISTENING_SECONDS = 4


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("watched") / "home") as running:
        yield running


def run(up: Up, text: str) -> subprocess.CompletedProcess[str]:
    """A block of the page in a shell; the port is the one that this installation has."""
    text = text.replace("https://localhost:8444", up.ready["url"])
    variables = environment(up.directory)
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    return subprocess.run(
        ["sh", "-euc", text],
        cwd=up.directory,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.interop
def test_the_commands_do_what_the_page_says(up: Up) -> None:
    require_program("curl")
    at_a_glance, readiness, metrics, events = (block.text for block in blocks(PAGE, "sh"))

    shown = run(up, at_a_glance)
    assert (shown.returncode, "KEY PROFILE" in shown.stdout) == (0, True), shown
    ready = run(up, readiness)
    assert (ready.returncode, ready.stdout) == (0, '{"status":"ok"}' * 3), ready
    told = run(up, metrics)
    assert (told.returncode, "privyseal_ready 1.0" in told.stdout) == (0, True), told
    heard = run(up, f"timeout --foreground -s INT {LISTENING_SECONDS} {events} || [ $? = 124 ]".replace("\n", " "))
    assert (heard.returncode, "Traceback" in heard.stderr) == (0, False), heard


def test_the_log_s_events_are_those_of_the_programs() -> None:
    section = PAGE.read_text("utf-8").partition("## One job through all logs")[2]
    rows = re.findall(r"^\| (hub|agent) \| (.+?) \|", section, re.MULTILINE)
    sources = {
        "hub": (ROOT / "src/privyseal/hub/services/observer.py").read_text("utf-8"),
        "agent": "".join(
            (ROOT / "src/privyseal/agent" / name).read_text("utf-8") for name in ("executor.py", "job_run.py")
        ),
    }

    named = [(log, event) for log, cell in rows for event in re.findall("`([^`]+)`", cell)]
    assert len(named) == 9
    assert [(log, event) for log, event in named if f'"{event}"' not in sources[log]] == []
