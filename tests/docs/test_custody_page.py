# SPDX-License-Identifier: Apache-2.0
"""docs/custody.md: its session answers as it stands there, its configuration is read, and it names every reason."""

import re
import shlex
from pathlib import Path

import pytest

from custody_sample import KEY, custody_day
from log_samples import SIGNER
from pages import ROOT, blocks
from privyseal.agent.config import parse_agent_config
from privyseal.agent.custody_spans import Reason
from privyseal.client.custody_timeline import UNTOLD
from privyseal.client.log_export import export_log
from programs import Outcome, privyseal, refused, succeeded

PAGE = ROOT / "docs" / "custody.md"
VKEY = SIGNER.verifier.vkey


@pytest.fixture
def logs(tmp_path: Path) -> dict[str, Path]:
    """The day that the page shows, and one on which the counter did not match."""
    found = {}
    for name, frozen in (("quiet", False), ("frozen", True)):
        found[name] = tmp_path / name
        export_log(custody_day(frozen=frozen).public(), found[name])
    return found


def _custody(log: Path, *arguments: str) -> Outcome:
    return privyseal("key", "custody", *arguments, "--log", log, "--vkey", VKEY)


def test_the_session_answers_as_it_stands_there(logs: dict[str, Path]) -> None:
    (session,) = blocks(PAGE, "console")
    line, _, answer = session.text.partition("\n")
    words = shlex.split(line.removeprefix("$ privyseal "))
    words[words.index("--log") + 1] = str(logs["quiet"])
    words[words.index("--vkey") + 1] = VKEY

    assert succeeded(privyseal(*words)).out == answer


def test_the_exit_codes_are_those_of_the_page(logs: dict[str, Path]) -> None:
    said = _custody(logs["frozen"])
    assert said.code == 3
    assert f"sha256:{KEY} [custody.frozen]" in said.err
    assert "mismatch: from 1840 to 1845, of them 2 results" in said.out
    document = _custody(logs["frozen"], "--json")
    assert (document.code, document.document["keys"][0]["frozen"]) == (3, True)
    assert document.err == ""

    whole = custody_day(frozen=False)
    cut = custody_day(frozen=False).beginning(3)
    cut.commit(*whole.entries[4:])
    export = logs["quiet"].with_name("cut")
    export_log(cut.public(), export)
    assert "event 3 after 1" in refused(_custody(export), 10, "log.entry").err


def test_a_document_says_the_same_for_programs(logs: dict[str, Path]) -> None:
    document = succeeded(
        _custody(logs["quiet"], KEY, "--json", "--from", "2026-03-02T12:00", "--to", "2026-03-02")
    ).document

    (key,) = document["keys"]
    assert (key["token"], key["profiles"], key["frozen"]) == ("000612345678", ["acme-ev"], False)
    assert [(part["state"], part["reasons"]) for part in key["custody"]][:2] == [
        ("unproven", ["shared"]),
        ("proven", []),
    ]
    assert key["custody"][0]["since"] == "2026-03-02T12:00:00.000Z"
    assert [count["verdict"] for count in key["counters"]] == ["match", "match"]


def test_the_configuration_is_read() -> None:
    counted, placed = blocks(PAGE, "toml")
    head = 'name = "token-host"\nhub = "https://hub"\nweb = "https://web"\n'

    (table, other) = parse_agent_config(head + counted.text + placed.text, Path("agent.toml")).token

    assert (table.counter, table.relocation) == ("openpgp", "record")
    assert (other.usb, other.relocation) == ("0529:0620", "quarantine")


def test_every_reason_is_explained_once() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)

    assert rows == sorted({*(str(reason) for reason in Reason), UNTOLD})
