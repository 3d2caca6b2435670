# SPDX-License-Identifier: Apache-2.0
"""`privyseal log export` and `log verify` of what it wrote: in a directory, and at a web server that is not ours."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from installation import Up
from programs import privyseal, refused, succeeded


def export(up: Up, folder: Path) -> Any:
    return succeeded(up.run("log", "export", folder, "--json")).document


@pytest.fixture(scope="module")
def exported(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "log"
    assert export(up, folder)["added"] > 0
    return folder


@pytest.fixture(scope="module")
def url(exported: Path) -> Iterator[str]:
    """Python's own web server over the directory."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(exported)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:[0-9]+", server.stdout.readline().decode())
            assert found is not None
            yield found[0]
        finally:
            server.terminate()


def served(exported: Path) -> list[Path]:
    return sorted(path for path in exported.rglob("*") if path.is_file())


def test_a_static_web_server_serves_a_log_that_verifies(up: Up, exported: Path, url: str) -> None:
    up_to_date = export(up, exported)

    found = succeeded(up.run("log", "verify", url, "--json")).document

    assert found["verified"]
    assert found["size"] == up_to_date["size"]
    assert found["checkpoints"] == up_to_date["checkpoints"] > 0
    assert found["tiles"] > 0
    assert found == succeeded(up.run("log", "verify", exported, "--json")).document


def test_a_stranger_needs_the_bundle_or_the_key_alone(up: Up, exported: Path, url: str, tmp_path: Path) -> None:
    vkey = (exported / "vkey").read_text().strip()
    bundle = up.client().identity.bundle

    for key in (("--vkey", vkey), ("--bundle", bundle)):
        assert "verified  log " in succeeded(privyseal("log", "verify", url, *key, cwd=tmp_path)).out
    refused(privyseal("log", "verify", url, cwd=tmp_path), 2, "config.missing")
    refused(privyseal("log", "verify", url, "--vkey", vkey, "--bundle", bundle, cwd=tmp_path), 2, "log.key")
    refused(privyseal("log", "verify", "--vkey", vkey, cwd=tmp_path), 2, "log.key")


def test_the_log_extends_the_hub_s_own_head_that_was_kept(up: Up, exported: Path, tmp_path: Path, app: Path) -> None:
    kept = tmp_path / "head.checkpoint"
    kept.write_bytes((up.directory / "hub" / "head.checkpoint").read_bytes())
    before = export(up, exported)["size"]
    succeeded(up.run("sign", "--key", "demo", app))

    found = succeeded(up.run("log", "verify", "--checkpoint", kept, "--json")).document
    assert found["extends"] == [{"file": str(kept), "size": before}]
    assert found["size"] > before
    newer = up.directory / "hub" / "head.checkpoint"
    refused(up.run("log", "verify", exported, "--checkpoint", newer), 10, "log.rewound")
    refused(up.run("log", "verify", kept, "--checkpoint", newer), 2, "log.key")


def test_a_flipped_byte_in_any_file_is_found_by_whoever_reads_it_over_http(up: Up, exported: Path, url: str) -> None:
    assert len(served(exported)) >= 5
    # With both of the log's keys: with its Ed25519 key alone, the other line on the checkpoint is a stranger's.
    bundle = up.client().identity.bundle
    for path in served(exported):
        data = path.read_bytes()
        spoilt = bytearray(data)
        spoilt[len(data) // 2] ^= 1
        path.write_bytes(spoilt)
        try:
            outcome = privyseal("log", "verify", url, "--bundle", bundle)
            assert outcome.code == 10, (path, outcome)
        finally:
            path.write_bytes(data)
    succeeded(up.run("log", "verify", url))


def test_a_second_run_after_another_signature_adds_to_it(up: Up, tmp_path: Path, app: Path) -> None:
    before = export(up, tmp_path / "log")
    succeeded(up.run("sign", "--key", "demo", app))

    after = export(up, tmp_path / "log")

    assert after["added"] == after["size"] - before["size"] >= 2
    assert export(up, tmp_path / "log")["added"] == 0
    assert succeeded(up.run("log", "verify", tmp_path / "log", "--json")).document["size"] == after["size"]


def test_a_place_that_is_none(up: Up, tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere", "ftp://localhost/log", "http://127.0.0.1:1/log?x=1"):
        refused(up.run("log", "verify", place), 2, "log.place")
    secret = refused(up.run("log", "verify", "https://auditor:canary@127.0.0.1:1/log"), 2, "log.place")
    assert "canary" not in secret.out + secret.err
    refused(up.run("log", "verify", "http://127.0.0.1:1/log"), 7, "log.unreachable")
    refused(up.run("log", "verify", tmp_path), 10, "log.file_missing")


def test_a_web_server_that_serves_something_else(up: Up, url: str) -> None:
    refused(up.run("log", "verify", f"{url}/tile"), 10, "log.file_missing")
