# SPDX-License-Identifier: Apache-2.0
"""Signing with timestamps: every file has one, or none of it was signed here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from authenticode_judges import accepted_by_osslsigncode
from installation import Up, copy_of_program
from pki_samples import tsa
from programs import refused, succeeded, unchanged
from tsa_samples import (
    Behaviour,
    OpensslTsa,
    TsaHost,
    busy,
    expired,
    honest,
    html,
    other_imprint,
    other_nonce,
    running_tsa,
)


@pytest.fixture
def host() -> Iterator[TsaHost]:
    with running_tsa() as running:
        yield running


@pytest.fixture
def roots(up: Up, tmp_path: Path) -> Path:
    """The client trusts the TSA's root; one file with it and the signer's for judges."""
    place = tmp_path / "roots.pem"
    place.write_bytes(tsa().root.pem + (up.directory / "test-root.pem").read_bytes())
    return place


@pytest.fixture
def config(up: Up, roots: Path, tmp_path: Path, host: TsaHost) -> Path:
    """The client's configuration with a list of TSAs: one that is not there, then one that is."""
    text = up.client().path.read_text()
    text = text.replace('identity = "client"', f'identity = "{up.client().identity.directory}"')
    head, _, tail = text.partition("trust = [")
    text = f'{head}trust = ["{roots}"{tail[tail.index("]") :]}'
    path = tmp_path / "client.toml"
    path.write_text(text + f'\ntimestamp = ["http://127.0.0.1:9/", "{host.url}"]\n')
    return path


@pytest.mark.interop
@pytest.mark.parametrize("certs", [True, False])
def test_a_release_with_timestamps_of_openssl(
    up: Up,
    host: TsaHost,
    config: Path,
    tmp_path: Path,
    certs: bool,  # noqa: FBT001
) -> None:
    host.behaviour = OpensslTsa(tmp_path / "tsa", certs=certs)
    (tmp_path / "dist").mkdir()
    files = [copy_of_program(tmp_path / "dist", f"app{number}.exe") for number in range(5)]

    outcome = succeeded(up.run("sign", "--config", config, "--key", "demo", tmp_path / "dist"))

    assert "no timestamp from http://127.0.0.1:9/" in outcome.err
    assert len(host.requests) == 5
    for file in files:
        assert accepted_by_osslsigncode(file, tmp_path / "roots.pem", timestamped=True)
        succeeded(up.run("verify", "--config", config, "--offline", file))


@pytest.mark.parametrize("behaviour", [other_nonce, other_imprint, expired, html, busy("3600")])
def test_without_a_timestamp_that_holds_the_file_stays_as_it_was(
    up: Up, host: TsaHost, config: Path, tmp_path: Path, behaviour: Behaviour
) -> None:
    host.behaviour = behaviour
    app = copy_of_program(tmp_path, "app.exe")

    with unchanged(app):
        outcome = up.run("sign", "--config", config, "--key", "demo", "--json", "--timestamp", host.url, app)

    assert outcome.code in (3, 7), outcome
    assert host.url in outcome.document["error"]["message"]
    # The signature was made, and is on record; the next run does not make another.
    signatures = succeeded(up.run("log", "verify", "--json")).document["signatures"]
    host.behaviour = honest
    document = succeeded(up.run("sign", "--config", config, "--key", "demo", "--json", app)).document
    assert document["timestamp"] is not None
    assert succeeded(up.run("log", "verify", "--json")).document["signatures"] == signatures


def test_a_file_without_a_timestamp_must_be_asked_for(up: Up, host: TsaHost, config: Path, tmp_path: Path) -> None:
    app = copy_of_program(tmp_path, "app.exe")

    document = succeeded(up.run("sign", "--config", config, "--key", "demo", "--json", "--no-timestamp", app)).document

    assert (document["timestamp"], host.requests) == (None, [])


def test_a_tsa_that_is_none_is_refused_before_anything_is_signed(up: Up, config: Path, tmp_path: Path) -> None:
    app = copy_of_program(tmp_path, "app.exe")
    signatures = succeeded(up.run("log", "verify", "--json")).document["signatures"]

    with unchanged(app):
        refused(
            up.run("sign", "--config", config, "--key", "demo", "--timestamp", "gopher://x", app), 2, "timestamp.url"
        )

    assert succeeded(up.run("log", "verify", "--json")).document["signatures"] == signatures
