# SPDX-License-Identifier: Apache-2.0
"""The documentation as something that can be run: pages, their fenced blocks, and the shell commands in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "Command", "blocks", "commands", "pages"]

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$|^#+ (?P<heading>[^\n]+)$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        section: The heading that it stands under.
    """

    page: Path
    section: str
    language: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command line of a shell block, taken apart as a shell would."""

    page: Path
    words: tuple[str, ...]


def pages() -> tuple[Path, ...]:
    """README, SECURITY, CONTRIBUTING and everything in docs/ but the generated error pages."""
    found = [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
    found += sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "errors")
    return tuple(found)


def blocks(page: Path, *languages: str) -> tuple[Block, ...]:
    """The page's blocks in these languages (none given: all), in order."""
    found: list[Block] = []
    section = ""
    for match in _FENCE.finditer(page.read_text("utf-8")):
        if match["heading"] is not None:
            section = match["heading"]
        elif not languages or match["language"] in languages:
            found.append(Block(page=page, section=section, language=match["language"], text=match["text"]))
    return tuple(found)


def commands(page: Path, program: str, text: str) -> Iterator[Command]:
    """Every use of a program in shell text, whatever stands before it (`sudo`, `runuser … --`, a variable)."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]  # the others are what was answered
    for line in prompted or lines:
        for part in re.split(r"\s(?:&&|\|\||[|;])\s|\$\(", line):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue  # a quotation over several lines holds no command
            for position, word in enumerate(words):
                if word == program or word.endswith(f"/{program}"):
                    yield Command(page=page, words=tuple(words[position + 1 :]))
                    break
