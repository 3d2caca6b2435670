# SPDX-License-Identifier: Apache-2.0
"""README.md: what it shows on one machine runs, and it leads to every page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from installation import copy_of_program, running_up
from pages import ROOT, blocks
from programs import environment

PAGE = ROOT / "README.md"


def test_one_machine(tmp_path: Path) -> None:
    """Everything that stands there after `up`, as it stands there."""
    up, then = (block.text for block in blocks(PAGE, "sh") if block.section == "On one machine")
    assert up == "privyseal up --dir ./signing\n"
    (tmp_path / "dist").mkdir()
    copy_of_program(tmp_path, "app.exe")
    copy_of_program(tmp_path / "dist", "setup.exe")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "privyseal").symlink_to(Path(sys.executable).with_name("privyseal"))
    variables = environment(tmp_path) | {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}

    with running_up(tmp_path / "signing"):
        done = subprocess.run(
            ["/bin/sh", "-ec", then], cwd=tmp_path, env=variables, capture_output=True, timeout=60, check=False
        )

    assert done.returncode == 0, (done.stdout, done.stderr)
    assert b"0 failed" in done.stdout
    assert (tmp_path / "dist" / "setup.exe.tlog-proof").exists()


def test_python_in_a_sentence() -> None:
    (call,) = re.findall(r"`privyseal\.(\w+)\(\)\.(\w+)\(", PAGE.read_text("utf-8"))
    module = __import__("privyseal")

    assert hasattr(getattr(module, call[0]), call[1])


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_it_leads_to_every_page(page: str) -> None:
    assert f"](docs/{page})" in PAGE.read_text("utf-8").partition("## More")[2]
