# SPDX-License-Identifier: Apache-2.0
"""An anchor from the command line to the log, over OpenSSL's TSA, judged by OpenSSL as docs/log.md says."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from installation import Up, running_up
from pages import ROOT, blocks
from pki_samples import authority, tsa
from programs import privyseal, refused, succeeded
from tsa_samples import OpensslTsa, TsaHost, running_tsa

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TsaHost]:
    with running_tsa(OpensslTsa(tmp_path_factory.mktemp("openssl") / "tsa", certs=True)) as running:
        yield running


@pytest.fixture(scope="module")
def anchored(tmp_path_factory: pytest.TempPathFactory, host: TsaHost) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("anchored") / "home"
    with running_up(home) as up:
        refused(up.run("log", "anchor"), 2, "tsa.none")
    hub = home / "hub" / "hub.toml"
    hub.write_text(hub.read_text() + f'\n[[tsa]]\nurl = "{host.url}"\n\n[anchor]\nevery = "24h"\n')
    with running_up(home) as running:
        yield running


def page_commands() -> str:
    (text,) = (block.text for block in blocks(ROOT / "docs" / "log.md", "sh") if "ts -verify" in block.text)
    return text


def test_the_hub_has_anchored_its_log_and_openssl_takes_the_token(anchored: Up, tmp_path: Path) -> None:
    (tmp_path / "tsa-root.pem").write_bytes(tsa().root.pem)
    (tmp_path / "other.pem").write_bytes(authority().pem)
    asked = refused(anchored.run("log", "anchor"), 7, "anchor.recent")  # by itself, when it started
    assert "less than a minute" in asked.err

    told = succeeded(anchored.run("log", "verify", "--tsa-trust", tmp_path / "tsa-root.pem", "--json")).document
    assert told["anchors"]["count"] == 1
    assert told["anchors"]["newest"]["tsa"]
    refused(anchored.run("log", "verify", "--tsa-trust", tmp_path / "other.pem"), 3, "log.anchor_token")
    succeeded(anchored.run("log", "export", tmp_path / "log"))
    bundle = ("--bundle", anchored.client().identity.directory / "bundle.json")
    said = succeeded(privyseal("log", "verify", *bundle, tmp_path / "log", "--tsa-trust", tmp_path / "tsa-root.pem"))
    assert "anchors   1" in said.out

    show, *rest = page_commands().splitlines(keepends=True)
    command = show.split(" > ")[0].removeprefix("privyseal ").split()
    (tmp_path / "anchor.json").write_text(succeeded(anchored.run(*command)).out)
    script = "".join(rest).replace("hub.example/log", anchored.client().load_bundle().hub)
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert b"Verification: OK" in done.stdout + done.stderr, done
    (tmp_path / "text").write_text((tmp_path / "text").read_text().replace("\n", "\n ", 1))
    done = subprocess.run(["bash", "-ec", script.splitlines()[-1]], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0
