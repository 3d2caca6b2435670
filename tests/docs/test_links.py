# SPDX-License-Identifier: Apache-2.0
"""Links of the documents lead to headings that exist (that the files exist is a house rule of its own)."""

import re
from pathlib import Path

import pytest

from pages import ROOT, pages

PAGES = pages()


def anchors(page: Path) -> set[str]:
    """The anchors that headings get where Markdown is shown, and those that are set by hand."""
    text = page.read_text("utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"></a>', text))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_to_headings(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", page.read_text("utf-8"))

    broken = [
        f"{file}#{anchor}" for file, anchor in links if anchor not in anchors(page.parent / file if file else page)
    ]

    assert broken == []


def test_headings_of_any_form_are_found() -> None:
    assert {"through-the-hub", "clienttoml"} <= anchors(ROOT / "docs/timestamps.md") | anchors(
        ROOT / "docs/configuration.md"
    )
