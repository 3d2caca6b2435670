# SPDX-License-Identifier: Apache-2.0
"""docs/errors/ tells every code that the programs raise, and says of each what to do."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from privyseal import errors

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "errors"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("error_pages", ROOT / "tools" / "error_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["error_pages"] = module
    spec.loader.exec_module(module)
    return module


def test_the_pages_are_up_to_date(generator: ModuleType) -> None:
    present = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.md")}

    assert present == generator.pages(), "run `make docs`"


def test_every_code_says_what_to_do(generator: ModuleType) -> None:
    assert generator.unexplained() == [], "write docs/errors/explanations.toml, or give the error a hint"


def test_no_entry_is_left_over(generator: ModuleType) -> None:
    assert generator.stale() == []


def test_codes_are_collected_from_any_form_of_call(generator: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        '_CODE = "made.constant"\n_HINT = "look there"\n'
        'ConfigError("made.plain", f"{self.path} is {len(x)} long" + " and old", hint=_HINT)\n'
        'raise errors.TokenError("made.one" if x else "made.two", "m")\n'
        "MalformedInputError(_CODE, f'no {_HINT}')\n"
        'Reason(code="made.reason", message="m", hint="h")\n'
        'UnavailableError(given, "m")\n'
    )

    found = generator.collected(tmp_path)

    assert {name: code.kind.branch for name, code in found.items()} == {
        "made.plain": "config", "made.one": "token", "made.two": "token", "made.constant": "malformed",
        "made.reason": "denied",
    }  # fmt: skip
    assert found["made.plain"].messages == ["{path} is {…} long and old"]
    assert found["made.plain"].hints == ["look there"]
    assert found["made.constant"].messages == ["no look there"]


def test_every_section_has_its_anchor_and_answers_what_a_reader_asks() -> None:
    index = (FOLDER / "README.md").read_text("utf-8")
    links = re.findall(r"\[([a-z0-9_.]+)\]\((\w+\.md)#([a-z0-9_.]+)\)", index)

    assert len(links) > 200
    for code, page, anchor in links:
        text = (FOLDER / page).read_text("utf-8")
        section = text.partition(f'<a id="{anchor}"></a>')[2].partition("<a id=")[0]
        assert section.startswith(f"\n\n## {code}\n"), code
        kind = errors.branch_named(page.removesuffix(".md"))
        assert "**What to do.** " in section, code
        assert f"Exit code {kind.exit_status}, HTTP status {kind.http_status}." in section, code


#: Pages that speak of no refusal.
WITHOUT_ERRORS = {"glossary.md"}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_a_page_names_codes_that_exist_and_leads_to_their_explanation(page: Path) -> None:
    index = (FOLDER / "README.md").read_text("utf-8")
    known = set(re.findall(r"\[([a-z0-9_.]+)\]\(\w+\.md#", index))
    text = page.read_text("utf-8")
    branches = {code.partition(".")[0] for code in known}
    named = {code for code in re.findall(r"`([a-z]+\.[a-z_]+)`", text) if code.partition(".")[0] in branches}

    files = {code for code in named if code.endswith((".toml", ".key", ".json"))}
    assert named - files - known == set()
    assert "](errors/" in text or page.name in WITHOUT_ERRORS
