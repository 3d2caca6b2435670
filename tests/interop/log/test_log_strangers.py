# SPDX-License-Identifier: Apache-2.0
"""A hub's log, checked the way docs/log.md shows it: by OpenSSL, by Python alone, and by a JSON Schema validator."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from installation import copy_of_program, running_up
from interop_tools import require_program
from log_samples import GrownLog, genesis, intent_at, result_of
from pages import ROOT, blocks
from privyseal.client.log_export import export_log
from privyseal.tlog.entry import Deny, Enrol, Entry, GrantEntry, KeyEntry, TimestampEntry, Unknown, encode_entry
from programs import succeeded

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "log.md"
VALIDATOR = Draft202012Validator(json.loads((ROOT / "docs" / "log-entries.schema.json").read_text("utf-8")))
SHOWN = {block.language: block.text for block in blocks(PAGE) if block.section == "With other programs"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The log of a hub that has signed."""
    place = tmp_path_factory.mktemp("strangers")
    with running_up(place / "home") as up:
        succeeded(up.run("sign", "--key", "demo", copy_of_program(place)))
        succeeded(up.run("log", "export", place / "log"))
        yield place / "log"


def openssl(folder: Path) -> int:
    require_program("openssl")
    done = subprocess.run(["sh", "-ec", SHOWN["sh"]], cwd=folder, capture_output=True, timeout=60, check=False)
    for name in ("text", "signature", "key.der"):
        (folder / name).unlink()
    return done.returncode


def python(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", SHOWN["python"], str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_openssl_verifies_the_checkpoint(exported: Path) -> None:
    assert openssl(exported) == 0

    note = (exported / "checkpoint").read_text()
    try:
        (exported / "checkpoint").write_text(note.replace("\n", "1\n", 1))
        assert openssl(exported) != 0
    finally:
        (exported / "checkpoint").write_text(note)


def test_real_entries_follow_the_published_schema(exported: Path) -> None:
    done = python(exported)

    assert done.returncode == 0, done.stderr
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert {entry["t"] for entry in entries} >= {"admin", "enrol", "key", "intent", "result"}
    assert [error.message for entry in entries for error in VALIDATOR.iter_errors(entry)] == []


@pytest.mark.parametrize("size", [1, 256, 257, 600])
def test_python_alone_recomputes_the_root(tmp_path: Path, size: int) -> None:
    export_log(GrownLog().grow_to(size).public(), tmp_path)
    done = python(tmp_path)
    assert (done.returncode, done.stdout.count("\n")) == (0, size), done.stderr

    bundle = next(path for path in sorted(tmp_path.glob("tile/entries/**/*")) if path.is_file())
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b'"v":1', b'"v":2', 1))
    assert "do not give the checkpoint's root" in python(tmp_path).stderr


INTENT = intent_at(2, 1)
SAMPLES: tuple[Entry, ...] = (
    genesis(),
    INTENT,
    result_of(3, 1, INTENT),
    result_of(3, 1, INTENT, "failed"),
    Unknown(ts=3, intent=1, request="r", item=0, profile="p", fence=1, code="token.timeout"),
    Deny(ts=1, client="c", profile="p", request="r", code="policy.profile"),
    Enrol(ts=1, action="join", role="client", name="n", key="k", certificate="c", profiles=("*",), statement="s"),
    GrantEntry(ts=1, client="c", profile="p", statement="s", authorities=("a", "b")),
    KeyEntry(
        ts=1, profile="p", agent="a", key="k", certificate="c", level="traced", opaque=(), token="t", hardware=True,
        witness="off", test=False,
    ),
    TimestampEntry(ts=1, client="c", token="t", imprint="i", tsa="t"),
)  # fmt: skip


@pytest.mark.parametrize("entry", SAMPLES, ids=lambda entry: f"{entry.__struct_config__.tag}-{SAMPLES.index(entry)}")
def test_the_schema_takes_entries_of_every_type_and_nothing_else(entry: Entry) -> None:
    document: dict[str, Any] = json.loads(encode_entry(entry))

    assert VALIDATOR.is_valid(document)
    for name in document:
        assert not VALIDATOR.is_valid({key: value for key, value in document.items() if key != name}), name
        assert not VALIDATOR.is_valid({**document, name: None}), name
        assert not VALIDATOR.is_valid({**document, name: 2**53}), name
    assert not VALIDATOR.is_valid({**document, "more": ""})
    assert not VALIDATOR.is_valid({**document, "t": "other"})
    assert not VALIDATOR.is_valid({**document, "v": 2})


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(VALIDATOR.schema)
