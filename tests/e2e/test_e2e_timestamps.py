# SPDX-License-Identifier: Apache-2.0
"""Timestamps through the hub: its TSAs, its log, and a client that believes nothing of it."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from api_client import Reply, api_of
from installation import Up, copy_of_program, running_up
from pki_samples import tsa
from privyseal.formats.authenticode.edits import EDITS
from privyseal.formats.authenticode.pe import PE
from privyseal.formats.model import SignOptions
from privyseal.pki import tsp
from privyseal.wire.api import TimestampRequest
from programs import refused, succeeded, unchanged
from tsa_samples import TsaHost, busy, honest, other_nonce, running_tsa


@pytest.fixture(scope="module")
def host() -> Iterator[TsaHost]:
    with running_tsa() as host:
        yield host


@pytest.fixture(scope="module")
def brokered(tmp_path_factory: pytest.TempPathFactory, host: TsaHost) -> Iterator[Up]:
    """An installation whose hub knows a TSA, and whose client has the hub ask it."""
    home = tmp_path_factory.mktemp("brokered") / "home"
    with running_up(home):
        pass
    hub, client = home / "hub" / "hub.toml", home / "client.toml"
    hub.write_text(hub.read_text() + f'\n[[tsa]]\nurl = "{host.url}"\n')
    (home / "tsa-root.pem").write_bytes(tsa().root.pem)
    text = client.read_text().replace("trust = [", 'trust = ["tsa-root.pem", ')
    client.write_text(text + 'timestamp_via = "hub"\n')
    with running_up(home) as running:
        yield running


@pytest.fixture
def signed(brokered: Up, tmp_path: Path) -> Path:
    path = copy_of_program(tmp_path)
    succeeded(brokered.run("sign", "--key", "demo", "--no-timestamp", path))
    return path


def newest(up: Up) -> dict[str, object]:
    document = json.loads(succeeded(up.run("log", "show", "--last", "1", "--json")).out)
    entry: dict[str, object] = document["entry"]
    return entry


def test_the_hub_asks_and_records(brokered: Up, host: TsaHost, signed: Path) -> None:
    host.behaviour = honest
    asked = len(host.requests)
    done = succeeded(brokered.run("timestamp", signed, "--json")).document

    assert (done["added"], len(host.requests) - asked) == (1, 1)
    verified = succeeded(brokered.run("verify", signed, "--json")).document
    assert verified["signatures"][0]["timestamp"] == done["timestamps"][0]
    assert verified["receipt"] is not None  # it is of the signature, which stays
    entry = newest(brokered)
    assert entry["t"] == "timestamp"
    assert entry["tsa"] == hashlib.sha256(tsa().leaf.der).hexdigest()
    (signature,) = EDITS.signature_values(PE.scan(io.BytesIO(signed.read_bytes()), SignOptions()))
    imprint = hashlib.sha256(signature).digest()
    assert imprint in host.requests[-1]
    assert entry["imprint"] == hashlib.sha256(imprint).hexdigest()
    counted = succeeded(brokered.run("log", "verify", "--json")).document["entries"]
    assert counted["timestamp"] >= 1


def test_signing_takes_its_timestamp_from_the_hub(brokered: Up, host: TsaHost, app: Path) -> None:
    host.behaviour = honest
    signed = succeeded(brokered.run("sign", "--key", "demo", "--json", app)).document

    assert signed["timestamp"] is not None
    assert newest(brokered)["t"] == "timestamp"
    verified = succeeded(brokered.run("verify", app, "--json")).document
    assert verified["signatures"][0]["timestamp"] == signed["timestamp"]


def test_a_lying_tsa_behind_the_hub_leaves_no_entry_and_no_timestamp(brokered: Up, host: TsaHost, signed: Path) -> None:
    before = newest(brokered)
    host.behaviour = other_nonce
    with unchanged(signed):
        said = refused(brokered.run("timestamp", signed, "--json"), 3, "timestamp.refused")

    assert host.url in said.document["error"]["message"]
    assert "[tsp.nonce]" in said.document["error"]["message"]
    assert newest(brokered) == before
    status = succeeded(brokered.run("status", "--json")).document["tsas"]
    assert [(one["url"], one["state"]) for one in status] == [(host.url, "ready")]
    assert "[tsp.nonce]" in status[0]["problem"]
    assert host.url in succeeded(brokered.run("status")).out
    host.behaviour = honest


def test_a_flag_goes_past_the_hub(brokered: Up, signed: Path) -> None:
    before = newest(brokered)
    with running_tsa() as other:
        succeeded(brokered.run("timestamp", signed, "--timestamp", other.url))

        assert len(other.requests) == 1
    assert newest(brokered) == before


def post(up: Up, body: bytes) -> Reply:
    api = api_of(up.client())
    try:
        return api("POST", "/v1/timestamps", body)
    finally:
        api.close()


def test_the_api_answers_with_the_response_itself(brokered: Up, host: TsaHost) -> None:
    host.behaviour = honest
    request = tsp.encode_request(tsp.TimeStampReq(digest_algorithm="sha256", imprint=b"i" * 32, nonce=77))

    reply = post(brokered, msgspec.json.encode(TimestampRequest(request=request)))

    assert reply.status == 200
    response = msgspec.json.decode(reply.body, type=dict[str, object])["response"]
    token = tsp.parse_response(msgspec.convert(response, bytes, strict=False))
    assert tsp.parse_token(token).nonce == 77


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"request": "%%"}', b'{"request": "AAAA"}', b'{"request": ""}', b'{"request": 1}']
)
def test_other_bodies_are_refused(brokered: Up, body: bytes) -> None:
    assert post(brokered, body).problem[0] == 422


def test_a_busy_tsa_is_left_alone_by_all_clients(brokered: Up, host: TsaHost, signed: Path) -> None:
    """The last test of this module: the hub keeps the patience that was asked for."""
    host.behaviour = busy("3600")
    asked = len(host.requests)
    with unchanged(signed):
        refused(brokered.run("timestamp", signed, "--json"), 7, "timestamp.unavailable")

    assert len(host.requests) - asked == 1
    status = succeeded(brokered.run("status", "--json")).document["tsas"]
    assert [one["state"] for one in status] == ["resting"]


def test_a_hub_that_knows_no_tsa_says_so(up: Up, app: Path, tmp_path: Path) -> None:
    succeeded(up.run("sign", "--key", "demo", app))
    config = up.directory / "via-hub.toml"
    config.write_text(up.config.read_text() + 'timestamp_via = "hub"\n')

    with unchanged(app):
        refused(up.run("timestamp", app, "--config", config, "--json"), 2, "tsa.none")
