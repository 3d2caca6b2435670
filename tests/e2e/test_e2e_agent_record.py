# SPDX-License-Identifier: Apache-2.0
"""What an agent signed under, written out beside the running agent and held against its hub's log, and another's."""

import json
from pathlib import Path

import pytest

from installation import Up, copy_of_program
from log_samples import GrownLog
from privyseal.client.log_export import export_log
from privyseal.identity.keyfile import load_ed25519
from privyseal.tlog.checkpoint import open_checkpoint
from privyseal.tlog.note import NoteSigner
from programs import privyseal, refused, succeeded


@pytest.fixture(scope="module")
def signed(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that was signed, and the record beside it."""
    place = tmp_path_factory.mktemp("record")
    for number in range(3):
        succeeded(up.run("sign", "--key", "demo", copy_of_program(place, f"{number}.exe")))
    told = succeeded(privyseal("agent", "export", "--dir", up.directory / "agent", place / "record", "--json")).document
    assert told["operations"] >= 3
    return place / "record"


def test_the_record_of_a_running_agent_stands_in_its_hub_s_log(up: Up, signed: Path, tmp_path: Path) -> None:
    succeeded(up.run("log", "export", tmp_path / "log"))

    for place in ((), (tmp_path / "log",)):
        (agent,) = succeeded(up.run("log", "verify", *place, "--agent", signed, "--json")).document["agents"]
        assert agent["operations"] >= agent["signed"] >= 3
        assert agent["different"] == 0
    assert "operations stand in the log" in succeeded(up.run("log", "verify", "--agent", signed)).out


def test_the_record_holds_no_secret_and_no_name(up: Up, signed: Path) -> None:
    text = signed.read_text()
    lines = [json.loads(line) for line in text.splitlines()]

    assert [set(line) for line in lines[1:2]] == [{"t", "checkpoint", "entry", "outcome", "signature"}]
    assert lines[0].keys() == {"t", "v", "agent", "origin", "operations"}
    assert lines[-1].keys() == {"t", "checkpoint"}
    assert (up.directory / "agent" / "pin").read_text().strip() not in text


def test_a_log_under_the_same_key_that_was_forked_is_contradicted_with_both_checkpoints_kept(
    up: Up, signed: Path, tmp_path: Path
) -> None:
    key = load_ed25519(up.directory / "hub" / "log.key")
    origin = up.client().load_bundle().hub
    signer = NoteSigner(name=origin, key=key)
    held = json.loads(signed.read_text().splitlines()[-1])["checkpoint"]
    size = int(held.split("\n")[1]) + 5
    fork = GrownLog(origin=origin, signer=signer).grow_to(size)
    folder = tmp_path / "fork"
    export_log(fork.public(), folder)
    record = tmp_path / "record"
    record.write_bytes(signed.read_bytes())

    outcome = refused(up.run("log", "verify", folder, "--agent", record), 10, "log.fork")

    assert "kept as proof" in outcome.err
    kept = [
        open_checkpoint((tmp_path / f"record.{end}").read_bytes(), origin=origin, verifiers=(signer.verifier,))
        for end in ("agent-checkpoint", "log-checkpoint")
    ]
    assert kept[0].size < kept[1].size == size
    succeeded(up.run("log", "verify", folder))


def test_an_agent_that_has_journalled_nothing_and_one_that_is_not_there(up: Up, tmp_path: Path) -> None:
    refused(privyseal("agent", "export", "--dir", tmp_path, tmp_path / "record"), 2, "file.missing")
    refused(up.run("log", "verify", "--agent", tmp_path / "none"), 2, "file.missing")
    (tmp_path / "noise").write_text("hello\n")
    refused(up.run("log", "verify", "--agent", tmp_path / "noise"), 1, "record.malformed")
