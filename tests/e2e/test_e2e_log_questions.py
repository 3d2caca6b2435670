# SPDX-License-Identifier: Apache-2.0
"""`privyseal log find`, `report` and `show --follow` against a hub that signs, as processes of their own."""

import csv
import hashlib
import io
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from installation import Up, copy_of_program
from privyseal.formats.model import SignOptions
from privyseal.formats.registry import format_named
from programs import command, environment, privyseal, refused, succeeded, until


@pytest.fixture(scope="module")
def signed(up: Up, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A signed program, and the SHA-256 that it had before."""
    program = copy_of_program(tmp_path_factory.mktemp("found"), "found.exe")
    with program.open("ab") as stream:
        stream.write(b"made for this test alone")
    before = hashlib.sha256(program.read_bytes()).hexdigest()
    succeeded(up.run("sign", "--key", "demo", program))
    return program, before


def find(up: Up, what: str | Path) -> Any:
    return succeeded(up.run("log", "find", what, "--json")).document


def test_a_signed_file_from_the_wild_is_found_by_its_signature(up: Up, signed: tuple[Path, str]) -> None:
    program, before = signed

    found = find(up, program)

    (use,) = found["uses"]
    assert use["matched"] == ["artifact", "signature"]
    assert (use["outcome"], use["profile"], use["claimed_sha256"]) == ("ok", "demo", before)
    assert found["unknown_signatures"] == []
    assert found["size"] > use["end_index"] > use["index"]
    said = succeeded(up.run("log", "find", program)).out
    assert f"{use['index']:>6}  " in said
    assert use["signature"] in said


def test_the_same_use_is_found_by_every_digest_of_it(up: Up, signed: tuple[Path, str], tmp_path: Path) -> None:
    program, before = signed
    (use,) = find(up, program)["uses"]
    plain = tmp_path / "plain.exe"
    plain.write_bytes(program.read_bytes())
    succeeded(privyseal("signature", "remove", plain))

    for what in (before, use["artifact"], use["signature"], f"sha256:{use['artifact'].upper()}", plain):
        assert [one["index"] for one in find(up, what)["uses"]] == [use["index"]], what


def test_what_is_not_ours_ends_with_3(up: Up, signed: tuple[Path, str], tmp_path: Path) -> None:
    program, _ = signed
    strange = copy_of_program(tmp_path, "strange.exe")
    with strange.open("ab") as stream:
        stream.write(b"never signed")

    refused(up.run("log", "find", strange), 3, "find.not_ours")
    refused(up.run("log", "find", strange, "--json"), 3, "find.not_ours")
    refused(up.run("log", "find", "0" * 64), 3, "find.not_ours")
    refused(up.run("log", "find", tmp_path / "nothing"), 1, "file.unreadable")
    spoilt = tmp_path / "spoilt.exe"
    data = program.read_bytes()
    value = bytes.fromhex(_signature_value(program))
    spoilt.write_bytes(data.replace(value, value[:-1] + bytes([value[-1] ^ 1])))
    outcome = up.run("log", "find", spoilt)
    assert outcome.code == 3
    assert "[find.not_ours]" in outcome.err
    assert "a signature in the file is not in this log" in outcome.out


def _signature_value(program: Path) -> str:
    chosen = format_named("authenticode-pe")
    assert chosen.edits is not None
    with program.open("rb") as stream:
        return chosen.edits.signature_values(chosen.scan(stream, SignOptions()))[0].hex()


def test_what_a_key_signed_is_reported_in_three_forms(up: Up, signed: tuple[Path, str]) -> None:
    (use,) = find(up, signed[0])["uses"]
    arguments = ("log", "report", "--key", use["key"], "--from", use["time"])

    said = succeeded(up.run(*arguments, "--json")).out.splitlines()
    rows, summary = [json.loads(line) for line in said[:-1]], json.loads(said[-1])["summary"]
    assert rows[0] == {name: value for name, value in use.items() if name != "matched"}
    assert summary["uses"] == len(rows)
    assert summary["ok"] == sum(row["outcome"] == "ok" for row in rows) >= 1
    assert summary["without_result"] == 0
    table = succeeded(up.run(*arguments, "--csv"))
    first = next(csv.DictReader(io.StringIO(table.out)))
    assert (first["artifact"], first["client"], first["index"]) == (use["artifact"], use["client"], str(use["index"]))
    assert "0 intents have no result" in table.err
    text = succeeded(up.run(*arguments)).out
    assert f"sha256:{use['artifact']}" in text
    assert f"{use['key']}: {len(rows)} uses: " in text


def test_a_report_of_another_time_or_key(up: Up, signed: tuple[Path, str]) -> None:
    outcome = succeeded(up.run("log", "report", "--key", "demo", "--from", "2001-01-01", "--to", "2001-12-31"))
    assert outcome.out.startswith("demo: 0 uses: ")
    refused(up.run("log", "report", "--key", "dmeo"), 2, "report.unknown_key")
    refused(up.run("log", "report", "--key", "demo", "--from", "monday"), 2, "usage.moment")
    refused(up.run("log", "report", "--key", "demo", "--csv", "--json"), 2, "usage.arguments")


def test_an_auditor_asks_an_export(up: Up, signed: tuple[Path, str], tmp_path: Path) -> None:
    succeeded(up.run("log", "export", tmp_path / "log"))
    place = ("--log", tmp_path / "log", "--vkey", (tmp_path / "log/vkey").read_text().strip())

    assert '"matched"' in succeeded(privyseal("log", "find", signed[0], *place, "--json")).out
    assert " 0 intents have no result" in succeeded(privyseal("log", "report", "--key", "demo", *place)).out


def test_entries_are_filtered(up: Up, signed: tuple[Path, str]) -> None:
    lines = succeeded(up.run("log", "show", "--type", "result", "--type", "key", "--last", "5", "--json")).out
    assert {json.loads(line)["entry"]["t"] for line in lines.splitlines()} <= {"result", "key"}
    assert succeeded(up.run("log", "show", "--since", "2999-01-01")).out == ""
    everything = succeeded(up.run("log", "show", "--since", "2001-01-01", "--json")).out.splitlines()
    assert [json.loads(line)["index"] for line in everything] == list(range(len(everything)))
    assert len(succeeded(up.run("log", "show", "--last", "2")).out.splitlines()) == 2
    refused(up.run("log", "show", "--type", "results"), 2, "log.type")


def test_new_entries_are_printed_as_they_come_until_it_is_interrupted(up: Up, tmp_path: Path, app: Path) -> None:
    told = tmp_path / "told"
    with (
        told.open("wb") as out,
        subprocess.Popen(
            command("log", "show", "--follow", "--last", "1", "--json"),
            env=environment(tmp_path, up.config),
            stdout=out,
            stderr=subprocess.PIPE,
        ) as following,
    ):
        try:
            until(lambda: told.read_bytes().count(b"\n") == 1, "the newest entry")
            succeeded(up.run("sign", "--key", "demo", app))
            until(lambda: b'"t": "result"' in told.read_bytes().partition(b"\n")[2], "the result")
            following.send_signal(signal.SIGINT)
            assert following.wait(timeout=30) == 130
            assert following.stderr is not None
            assert following.stderr.read() == b"interrupted\n"
        finally:
            following.kill()
    indexes = [json.loads(line)["index"] for line in told.read_text().splitlines()]
    assert indexes == list(range(indexes[0], indexes[0] + len(indexes)))
