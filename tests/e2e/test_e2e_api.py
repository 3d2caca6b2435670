# SPDX-License-Identifier: Apache-2.0
"""The API on its real listeners: who may call what, bodies that are wrong, and the same request sent again."""

import hashlib
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import urllib3

from api_client import Api, Asked, api_of, ask, web_of
from installation import Site, Up, running_up
from privyseal.client.hub import HubClient
from privyseal.client.receipts import check_receipt
from privyseal.hub.http.routes import Listener
from privyseal.hub.wiring import all_routes
from privyseal.identity.keyfile import load_ed25519
from privyseal.tlog.entry import canonical_json
from privyseal.wire.api import SignatureItem
from privyseal.wire.dsse import parse_envelope, seal
from privyseal.wire.statement import REQUEST_TYPE, statement_id
from programs import succeeded


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An installation of these tests alone: what they send is meant to do damage."""
    with running_up(tmp_path_factory.mktemp("api") / "home") as running:
        yield running


@pytest.fixture(scope="module")
def api(up: Up) -> Api:
    return api_of(up.client())


@pytest.fixture(scope="module")
def web(up: Up) -> Api:
    return web_of(up.client())


def log_size(up: Up) -> int:
    return HubClient(up.client()).status().log_size


# -- who may call -----------------------------------------------------------------------------------------------------


def test_the_mtls_listener_ends_a_handshake_without_certificate(up: Up) -> None:
    config = up.client()
    stranger = Api(config.hub_urls[0], config.load_bundle().statement.ca)

    with pytest.raises(urllib3.exceptions.HTTPError):
        stranger("GET", "/v1/status")


@pytest.mark.parametrize("listener", ["hub_urls", "web_urls"])
def test_neither_listener_speaks_tls_1_2(up: Up, listener: str) -> None:
    config = up.client()
    old = api_of(config)
    (old.url,) = getattr(config, listener)
    old.context.minimum_version = ssl.TLSVersion.TLSv1_2
    old.context.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(urllib3.exceptions.SSLError):
        old("GET", "/livez")


def test_an_agent_may_not_ask_for_signatures(site: Site) -> None:
    config = site.client()
    agent = api_of(config, site.agent_directory)

    assert agent("POST", "/v1/signatures", ask(config, "release").body).problem == (401, "identity.role")
    assert agent("GET", "/v1/profiles/release").problem == (401, "identity.role")
    assert agent("GET", "/v1/status").document["client"] == "lab"


def test_a_client_may_not_open_an_agents_link(api: Api) -> None:
    assert api("GET", "/v1/agents/link").problem == (401, "identity.role")


def test_a_route_answers_at_one_listener_only(api: Api, web: Api) -> None:
    listening = {Listener.MTLS: api, Listener.WEB: web}
    for route in all_routes():
        path = route.path.replace("{id}", "0").replace("{name}", "x").replace("{sha256}", "0").partition("{")[0]
        other = listening[Listener.WEB if route.listener is Listener.MTLS else Listener.MTLS]
        assert other(route.method, path).status == 404, (route.listener, route.path)


def test_openapi_names_every_route_with_listener_and_permission(web: Api) -> None:
    document = web("GET", "/openapi.json").document

    described = {
        (method.upper(), path, operation["x-privyseal-listener"], operation["x-privyseal-permission"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert described == {
        (route.method, route.path.replace(":.+", ""), route.listener.value, route.permission.value)
        for route in all_routes()
    }
    schemas = document["components"]["schemas"]
    named = set(_references(document))
    assert {"SignatureRequest", "RequestView", "Problem"} <= named
    assert named <= set(schemas)


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].rpartition("/")[2]] if isinstance(value.get("$ref"), str) else []
        return own + [name for member in value.values() for name in _references(member)]
    return [name for member in value for name in _references(member)] if isinstance(value, list) else []


def test_health(web: Api) -> None:
    assert web("GET", "/livez").document == {"status": "ok"}
    assert web("GET", "/readyz").document == {"status": "ok"}


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"null",
        b"[]",
        b"{}",
        b'{"envelope": "", "preimages": "none"}',
        b'{"envelope": "!!!", "preimages": []}',
        b"\xff\xfe\x00",
        b"[" * 200_000,
        b'{"a":' * 100_000,
    ],
    ids=["empty", "words", "null", "list", "object", "types", "base64", "bytes", "deep-list", "deep-object"],
)
def test_a_body_that_is_none(api: Api, web: Api, body: bytes) -> None:
    assert api("POST", "/v1/signatures", body).problem == (422, "body.malformed")
    assert web("POST", "/v1/join", body).problem == (422, "body.malformed")
    assert web("POST", "/v1/authority", body).problem == (422, "envelope.malformed")


def test_a_body_that_is_too_large(api: Api) -> None:
    assert api("POST", "/v1/signatures", bytes(65 * 1024 * 1024)).problem[0] == 413


def test_a_body_whose_connection_is_lost_is_no_failure_of_the_hub(up: Up, api: Api) -> None:
    host, _, port = api.url.removeprefix("https://").partition(":")
    begun = len(up.running.log)
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        sock = api.context.wrap_socket(plain, server_hostname=host)
        sock.sendall(b"POST /v1/signatures HTTP/1.1\r\nHost: hub\r\nContent-Length: 100\r\n\r\nhalf of it")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    assert api("GET", "/v1/status").status == 200
    assert "Traceback" not in up.running.log[begun:]


def test_an_address_that_is_none(api: Api, web: Api) -> None:
    assert api("GET", "/v1/no-such-thing").problem[0] == 404
    assert web("GET", "/v1/no-such-thing").problem[0] == 404
    assert api("DELETE", "/v1/status").problem[0] == 405


def raw(config: Any, fields: dict[str, Any], preimages: tuple[SignatureItem, ...]) -> bytes:
    """The body of a request whose statement holds these fields, whatever they are."""
    envelope = seal(REQUEST_TYPE, canonical_json(fields), (load_ed25519(config.identity.request_key),))
    return Asked(statement=ask(config).statement, envelope=envelope, preimages=preimages).body


def _deeper(fields: dict[str, Any]) -> None:
    fields["items"][0]["claimed"]["more"] = 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda fields: fields.update(more=1), "request.malformed"),
        (_deeper, "request.malformed"),
        (lambda fields: fields.pop("hub"), "request.malformed"),
        (lambda fields: fields.update(v=2), "request.malformed"),
        (lambda fields: fields.update(items=[]), "request.malformed"),
        (lambda fields: fields.update(items=fields["items"] * 2), "request.items"),
        (lambda fields: fields.update(created=1.5), "request.malformed"),
        (lambda fields: fields.update(created=2**70), "request.malformed"),
        (lambda fields: fields.update(not_after=2**70), "request.malformed"),
        (lambda fields: fields.update(created=-(2**70)), "request.malformed"),
        (lambda fields: fields.update(idempotency_key="x" * 5000), "request.malformed"),
        (lambda fields: fields.update(hub="elsewhere"), "request.hub"),
        (lambda fields: fields.update(format="no-such-format"), "format.unknown"),
        (lambda fields: fields["items"][0].update(preimage="0" * 64), "request.preimage"),
        (lambda fields: fields["items"][0]["artifact"].update(digest="0" * 64), "request.artifact"),
        (lambda fields: fields["items"][0]["artifact"].update(alg="sha384"), "request.artifact"),
        (lambda fields: fields["items"][0]["claimed"].update(size=-1), "request.malformed"),
        (lambda fields: fields["items"][0]["claimed"].update(size=2**60), "request.malformed"),
        (lambda fields: fields["items"][0]["claimed"].update(sha256="x"), "request.malformed"),
        (lambda fields: fields["items"][0]["claimed"].update(sha256="0" * 70_000), "request.malformed"),
    ],
    ids=[
        "unknown-field", "unknown-inner-field", "no-hub", "version", "no-items", "more-items", "fraction",
        "created-too-large", "not-after-too-large", "created-too-small",
        "key-too-long", "other-hub", "format", "preimage", "artifact", "algorithm",
        "negative-size", "size-too-large", "claimed-digest", "claimed-digest-enormous",
    ],
)  # fmt: skip
def test_a_statement_that_does_not_hold(up: Up, api: Api, change: Callable[[dict[str, Any]], Any], code: str) -> None:
    asked = ask(up.client())
    fields = msgspec.to_builtins(asked.statement)
    change(fields)
    size = log_size(up)

    assert api("POST", "/v1/signatures", raw(up.client(), fields, asked.preimages)).problem == (422, code)
    assert log_size(up) == size, "what is malformed leaves nothing in the log"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"created": 1_000, "not_after": 2_000}, "request.expired"),
        ({"created": 4_000_000_000_000, "not_after": 4_100_000_000_000}, "request.future"),
    ],
)
def test_a_statement_that_is_refused_is_on_record(up: Up, api: Api, changes: dict[str, Any], code: str) -> None:
    asked = ask(up.client(), **changes)

    assert api("POST", "/v1/signatures", asked.body).problem == (403, code)

    entry = json.loads(succeeded(up.run("log", "show", "--last", "1", "--json")).out)["entry"]
    assert (entry["t"], entry["code"]) == ("deny", code)
    request_key = load_ed25519(up.client().identity.request_key).public_key().public_bytes_raw()
    assert entry["request"] == statement_id(request_key, parse_envelope(asked.envelope, REQUEST_TYPE).payload)


def test_a_profile_that_is_not_there(up: Up, api: Api) -> None:
    asked = ask(up.client())
    fields = msgspec.to_builtins(asked.statement) | {"profile": "other"}

    assert api("POST", "/v1/signatures", raw(up.client(), fields, asked.preimages)).problem == (400, "profile.unknown")
    assert api("GET", "/v1/profiles/other").problem == (400, "profile.unknown")


@pytest.mark.parametrize("tail", [b"\0", b"\x30\x00", b"more"])
def test_attributes_with_trailing_bytes(up: Up, api: Api, tail: bytes) -> None:
    """What the signature would cover must be exactly one structure, and nothing may hide behind it."""
    asked = ask(up.client())
    signed = asked.preimages[0].signed + tail
    items = (msgspec.structs.replace(asked.statement.items[0], preimage=hashlib.sha256(signed).hexdigest()),)
    fields = msgspec.to_builtins(msgspec.structs.replace(asked.statement, items=items))
    size = log_size(up)

    for preimage in (
        SignatureItem(signed=signed, detail=asked.preimages[0].detail),
        SignatureItem(signed=asked.preimages[0].signed, detail=asked.preimages[0].detail + tail),
    ):
        status, code = api("POST", "/v1/signatures", raw(up.client(), fields, (preimage,))).problem
        assert (status, code.partition(".")[0]) in {(422, "authenticode"), (422, "der"), (422, "spc"), (422, "cms")}, (
            code
        )
    assert log_size(up) == size


def test_a_statement_signed_by_another_client(site: Site) -> None:
    """A request belongs to the client whose key has signed it, whoever sends it."""
    site.add_client("borrower")
    asked = ask(site.client(), "release")
    borrower = api_of(site.client("borrower"))

    assert borrower("POST", "/v1/signatures", asked.body).problem == (422, "envelope.signature")


# -- the same request again -------------------------------------------------------------------------------------------


def test_the_same_bytes_again_give_the_same_signature_and_receipt(up: Up, api: Api) -> None:
    asked = ask(up.client())
    first = api("POST", "/v1/signatures?wait=30", asked.body)
    size = log_size(up)
    again = api("POST", "/v1/signatures?wait=30", asked.body)

    assert (first.status, again.status) == (200, 200)
    assert again.document == first.document
    assert api("GET", f"/v1/signatures/{first.document['id']}").document == first.document
    assert log_size(up) == size
    item = first.document["items"][0]
    assert item["state"] == "signed"
    receipt = check_receipt(item["receipt"], up.client().load_bundle())
    assert receipt.entry.request == first.document["id"]


def test_another_request_under_the_same_key_is_a_conflict(up: Up, api: Api) -> None:
    asked = ask(up.client())
    other = ask(up.client(), idempotency_key=asked.statement.idempotency_key)

    assert api("POST", "/v1/signatures?wait=30", asked.body).status == 200
    assert api("POST", "/v1/signatures?wait=30", other.body).problem == (409, "idempotency.conflict")


@pytest.mark.parametrize("wait", ["", "x", "-1", "61", "1e9", "nan", "inf", "0x10"])
def test_a_wait_that_is_no_time(up: Up, api: Api, wait: str) -> None:
    asked = ask(up.client())
    size = log_size(up)

    assert api("POST", f"/v1/signatures?wait={wait}", asked.body).problem == (422, "query.wait")
    assert log_size(up) == size, "what is refused is not signed"


def test_a_client_sees_its_own_requests_only(site: Site) -> None:
    site.add_client("curious")
    asked = ask(site.client(), "release")
    answer = api_of(site.client())("POST", "/v1/signatures?wait=30", asked.body).document

    curious = api_of(site.client("curious"))
    assert curious("GET", f"/v1/signatures/{answer['id']}?wait=30").problem == (400, "request.unknown")
    assert curious("GET", "/v1/signatures/" + "0" * 64).problem == (400, "request.unknown")
    assert curious("GET", "/v1/signatures/x").problem == (400, "request.unknown")


def test_many_items_of_one_request(up: Up, api: Api) -> None:
    """More than a batch, and more entries than a tile holds; in their order, each with a receipt of its own."""
    asked = ask(up.client(), items=130)

    answer = api("POST", "/v1/signatures?wait=60&enough=130", asked.body).document

    assert (answer["state"], answer["total"], answer["first"]) == ("done", 130, 0)
    bundle = up.client().load_bundle()
    receipts = [check_receipt(item["receipt"], bundle) for item in answer["items"]]
    assert [receipt.entry.item for receipt in receipts] == list(range(130))
    assert len({item["signature"] for item in answer["items"]}) == 130
    verified = succeeded(up.run("log", "verify", "--json")).document
    assert verified["size"] > 256
    rest = api("GET", f"/v1/signatures/{answer['id']}?from=128").document
    assert (rest["first"], rest["items"]) == (128, answer["items"][128:])
    assert api("GET", f"/v1/signatures/{answer['id']}?from=130&enough=9").document["items"] == []


@pytest.mark.parametrize("query", ["from=-1", "from=x", "from=1.5", "from=10001", "enough=-1", "enough=", "enough=1e3"])
def test_a_part_of_a_request_that_is_none(api: Api, query: str) -> None:
    name = query.partition("=")[0]
    assert api("GET", f"/v1/signatures/{'0' * 64}?{query}").problem == (422, f"query.{name}")


@pytest.mark.parametrize("text", ["x", "0" * 63, "zz" * 32, "00" * 33, "%00", "0" * 5000])
def test_a_certificates_state_is_asked_by_its_sha256(web: Api, text: str) -> None:
    assert web("GET", f"/v1/certificates/{text}").problem == (422, "query.sha256")


def test_the_state_of_a_certificate(up: Up, web: Api) -> None:
    certificate = ssl.PEM_cert_to_DER_cert((up.client().identity.directory / "tls.pem").read_text())

    standing = web("GET", f"/v1/certificates/{hashlib.sha256(certificate).hexdigest()}")

    assert standing.document == {"state": "standing"}
    assert web("GET", "/v1/certificates/" + "0" * 64).document == {"state": "unknown"}


def test_an_api_is_not_kept_by_what_it_was_asked(api: Api, web: Api) -> None:
    """After all that, both listeners answer as before."""
    assert web("GET", "/readyz").status == 200
    assert api("GET", "/v1/status").status == 200
