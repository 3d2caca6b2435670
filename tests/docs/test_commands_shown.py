# SPDX-License-Identifier: Apache-2.0
"""What the documents show exists: commands and flags, extras, and the keys of configuration files."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cyclopts
import msgspec
import pytest

from pages import ROOT, blocks, commands, pages
from privyseal.agent.config import AgentConfig, KeyConfig, RecoveryTable, TokenTable
from privyseal.agent.device_config import DeviceTable
from privyseal.cli.app import app
from privyseal.client.config import _ClientTable
from privyseal.hub.config import AnchorTable, HubConfig, MetricsTable, QueueTable, TeamTable, TsaTable
from privyseal.witness.config import LogTable, WitnessConfig

PAGES = pages()
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

#: Fronts have another program's command line, which tests of their own judge.
FRONTS = ("signtool",)

#: Where a shell takes a command's words to be over.
_SHELL = re.compile(r"[0-9]?[<>]")


def refusal(words: tuple[str, ...]) -> str:
    """Why the program would not take these arguments; empty if it would."""
    if words[:1] in [(front,) for front in FRONTS]:
        return ""
    end = next((place for place, word in enumerate(words) if _SHELL.match(word)), len(words))
    try:
        app.parse_args(list(words[:end]), exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        return str(error)
    return ""


def unknown_in_mention(words: list[str]) -> list[str]:
    """What does not exist in a command that is mentioned in a sentence, where arguments may be left out."""
    command = app
    while words and not words[0].startswith("-") and words[0] in command:
        command = command[words.pop(0)]
    if command.default_command is None or command is app:
        return [word for word in words[:1] if re.fullmatch(r"[a-z][a-z-]*", word)]
    names = {"--help"} | {name for argument in command.assemble_argument_collection() for name in argument.names}
    return [word for word in words if word.startswith("-") and word not in names and word != "-"]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_in_blocks_would_be_taken(page: Path) -> None:
    texts = [block.text for block in blocks(page, "sh", "", "yaml", "groovy")]
    found = [one for text in texts for one in commands(page, "privyseal", text)]

    refused = {" ".join(one.words): refusal(one.words) for one in found}
    assert {line: why for line, why in refused.items() if why} == {}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_in_sentences_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    mentions = [" ".join(found.split()) for found in re.findall(r"`privyseal ([^`]+)`", text)]

    unknown = {mention: unknown_in_mention(mention.split(" ")) for mention in mentions}
    assert {mention: words for mention, words in unknown.items() if words} == {}


def test_enough_is_looked_at() -> None:
    seen = [one for page in PAGES for block in blocks(page, "sh") for one in commands(page, "privyseal", block.text)]

    assert len(seen) > 40
    assert {one.words[0] for one in seen} >= {"sign", "verify", "hub", "agent", "client", "token", "key", "doctor"}


@pytest.mark.parametrize(
    ("line", "why"),
    [("sign --key k --page-hash a.exe", "--page-hash"), ("token adds --dir a", "adds"), ("token add", "--dir")],
)
def test_what_does_not_exist_is_noticed(line: str, why: str) -> None:
    (found,) = commands(ROOT, "privyseal", f"sudo -u build privyseal {line} > log  # so")

    assert why in refusal(found.words)


def test_extras_that_are_installed_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = [
        (page.name, extra)
        for page in PAGES
        for line in re.findall(r"pip install .*", page.read_text("utf-8"))
        for group in re.findall(r"(?:privyseal|\.)\[([a-z,]+)\]", line)
        for extra in group.split(",")
    ]

    assert named
    assert [one for one in named if one[1] not in extras] == []


def fields(table: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(table)}


def unknown_keys(document: dict[str, Any]) -> Iterator[str]:
    """Keys of a TOML example, which may be a part of a file, that no program reads."""
    inner: dict[str, type[msgspec.Struct]] = {
        "token": TokenTable,
        "key": KeyConfig,
        "device": DeviceTable,
        "tsa": TsaTable,
        "log": LogTable,
        "team": TeamTable,
    }
    top = {name for name, value in document.items() if not isinstance(value, list) or name not in inner}
    files = (AgentConfig, HubConfig, WitnessConfig, _ClientTable)
    parts = (TokenTable, KeyConfig, TsaTable, LogTable)
    if not any(top <= fields(table) for table in (*files, *parts)):
        yield f"no table has all of {sorted(top)}"
    tables: dict[str, type[msgspec.Struct]]
    tables = {"anchor": AnchorTable, "metrics": MetricsTable, "recovery": RecoveryTable, "queue": QueueTable}
    for name, table in tables.items():
        yield from (f"{name}.{key}" for key in document.get(name, {}).keys() - fields(table))
    for name in document.keys() & inner.keys():
        if isinstance(document[name], list):
            yield from (f"{name}.{key}" for table in document[name] for key in table.keys() - fields(inner[name]))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_configuration_keys_exist(page: Path) -> None:
    unknown = [key for block in blocks(page, "toml") for key in unknown_keys(tomllib.loads(block.text))]

    assert unknown == []


def test_keys_that_do_not_exist_are_noticed() -> None:
    assert list(unknown_keys({"timestamps": []})) == ["no table has all of ['timestamps']"]
    assert list(unknown_keys({"anchor": {"often": "1h"}})) == ["anchor.often"]
    assert list(unknown_keys({"metrics": {"allowed": []}})) == ["metrics.allowed"]
    assert list(unknown_keys({"token": [{"name": "a", "driver": "b"}]})) == ["token.driver"]
