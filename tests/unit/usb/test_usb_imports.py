# SPDX-License-Identifier: Apache-2.0
"""privyseal.usb needs the standard library alone: it runs where nothing is installed, as on a machine under test."""

import ast
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[3] / "src" / "privyseal" / "usb"


def test_it_imports_the_standard_library_and_our_errors_only() -> None:
    imported = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                imported.add(node.module or "")

    foreign = {
        name
        for name in imported
        if name.partition(".")[0] not in sys.stdlib_module_names
        and name != "privyseal.errors"
        and not name.startswith("privyseal.usb.")
    }

    assert len(imported) > 10
    assert foreign == set()
