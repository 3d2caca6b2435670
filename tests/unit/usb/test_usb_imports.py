# SPDX-License-Identifier: Apache-2.0
"""What speaks to USB needs the standard library alone: it runs where nothing is installed, as in a test machine."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src" / "privyseal"


@pytest.mark.parametrize("folder", ["usb", "usbip"])
def test_it_imports_the_standard_library_and_our_errors_only(folder: str) -> None:
    imported = set()
    for path in (SOURCE / folder).glob("*.py"):
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
        and not name.startswith((f"privyseal.{folder}.", "privyseal.usbip."))
    }

    assert len(imported) > 7
    assert foreign == set()
