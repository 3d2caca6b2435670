# SPDX-License-Identifier: Apache-2.0
"""The proxied listener, asked without a proxy in between: who may use it, for what, and how often."""

import re
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import urllib3

from api_client import Asked, Reply, ask
from installation import Site, add_to_agent, copy_of_program, free_port, make_site, software_token
from privyseal.client.transport import web_context
from privyseal.hub.config import load_hub_config
from privyseal.identity.keyfile import load_ed25519
from privyseal.wire.http_signature import CONTENT_DIGEST, SIGNATURE, SIGNATURE_INPUT, message_to_sign, sign_message
from programs import privyseal, succeeded


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Hub, agent and client, the hub with a proxied listener on loopback."""
    site = make_site(tmp_path_factory.mktemp("proxied") / "lab")
    try:
        add_to_agent(site, software_token(site.agent_directory))
        site.running["hub"].stop()
        path = site.hub_directory / "hub.toml"
        more = f'listen_proxied = "127.0.0.1:{free_port()}"\nnames = ["hub-1.internal"]\n'
        path.write_text(more + path.read_text())
        site.start_hub()
        site.start_agent()
        site.until_online("demo")
        yield site
        site.stop()
    finally:
        site.end()


@dataclass(kw_only=True)
class Sender:
    """Sends what a test wants, signed by a client, over plain HTTP as a proxy would."""

    site: Site
    client: str = "client"

    def fields(self, method: str, path: str, body: bytes | None = None, *, age_seconds: int = 0) -> dict[str, str]:
        config = self.site.client(self.client)
        return sign_message(
            message_to_sign(method, path, body),
            load_ed25519(config.identity.request_key),
            hub=config.load_bundle().hub,
            created_s=int(time.time()) - age_seconds,
            nonce=secrets.token_bytes(16),
        )

    def send(self, method: str, path: str, body: bytes | None, fields: dict[str, str]) -> Reply:
        address = load_hub_config(self.site.hub_directory).listen_proxied
        answer = urllib3.request(method, f"http://{address}{path}", body=body, headers=fields, retries=False)
        headers = answer.headers
        return Reply(
            status=answer.status,
            kind=headers.get("Content-Type", ""),
            caching=headers.get("Cache-Control", ""),
            body=answer.data,
        )

    def __call__(self, method: str, path: str, body: bytes | None = None) -> Reply:
        return self.send(method, path, body, self.fields(method, path, body))


@pytest.fixture
def sender(lab: Site) -> Sender:
    return Sender(site=lab)


def entries(lab: Site) -> int:
    size: int = succeeded(lab.run("log", "verify", "--json")).document["size"]
    return size


def asked(lab: Site) -> Asked:
    return ask(lab.client())


def test_a_signed_request_is_a_clients(sender: Sender) -> None:
    assert sender("GET", "/v1/status").document["client"] == "client"


def test_a_file_is_signed_once_however_often_it_is_asked_for(lab: Site, sender: Sender) -> None:
    request = asked(lab)

    first, second = (sender("POST", "/v1/signatures?wait=30&enough=1", request.body).document for _ in range(2))

    assert [item["state"] for item in first["items"]] == ["signed"]
    assert first["items"] == second["items"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_was_recorded_is_not_taken_again(lab: Site, sender: Sender, method: str) -> None:
    body = asked(lab).body if method == "POST" else None
    path = "/v1/signatures?wait=30&enough=1" if method == "POST" else "/v1/profiles/demo"
    fields = sender.fields(method, path, body)
    assert sender.send(method, path, body, fields).status == 200
    before = entries(lab)

    assert sender.send(method, path, body, fields).problem == (401, "proof.replayed")
    assert entries(lab) == before


@pytest.mark.parametrize("age_seconds", [70, -70])
def test_what_was_not_signed_now_is_refused(sender: Sender, age_seconds: int) -> None:
    fields = sender.fields("GET", "/v1/status", age_seconds=age_seconds)

    assert sender.send("GET", "/v1/status", None, fields).problem == (401, "proof.time")


def test_a_request_that_nobody_signed(sender: Sender) -> None:
    forwarded = {"X-Forwarded-For": "127.0.0.1", "X-SSL-Client-CN": "client", "X-Client-Cert": "client"}

    assert sender.send("GET", "/v1/status", None, forwarded).problem == (401, "proof.missing")


def test_what_differs_from_what_was_signed(lab: Site, sender: Sender) -> None:
    body = asked(lab).body
    path = "/v1/signatures?wait=1&enough=1"
    fields = sender.fields("POST", path, body)
    before = entries(lab)

    assert sender.send("POST", "/v1/anchors", body, fields).problem == (401, "proof.signature")
    assert sender.send("POST", path + "&from=1", body, fields).problem == (401, "proof.signature")
    assert sender.send("POST", path, asked(lab).body, fields).problem == (401, "proof.digest")
    without = {name: value for name, value in fields.items() if name != CONTENT_DIGEST}
    assert sender.send("POST", path, body, without).problem == (401, "proof.malformed")
    assert entries(lab) == before


def test_a_body_is_read_only_for_who_has_signed_it(lab: Site, sender: Sender) -> None:
    """A stranger announces sixty megabytes and is refused before he has sent one of them."""
    host, _, port = load_hub_config(lab.hub_directory).listen_proxied.rpartition(":")
    fields = sender.fields("POST", "/v1/anchors", b"something")
    fields[SIGNATURE] = sender.fields("POST", "/v1/anchors", b"something")[SIGNATURE]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection((host, int(port)), timeout=10) as stream:
        stream.sendall(f"POST /v1/anchors HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n{head}\r\n".encode())
        assert stream.recv(65_536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("name", [SIGNATURE, SIGNATURE_INPUT])
def test_a_field_that_stands_there_twice(lab: Site, sender: Sender, name: str) -> None:
    """What one program reads as the first and another as the last is read by none."""
    host, _, port = load_hub_config(lab.hub_directory).listen_proxied.rpartition(":")
    fields = [*sender.fields("GET", "/v1/status").items(), (name, sender.fields("GET", "/v1/status")[name])]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    with socket.create_connection((host, int(port)), timeout=10) as stream:
        stream.sendall(f"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n".encode())
        answer = b"".join(iter(lambda: stream.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"proof.malformed" in answer


def test_an_agent_has_nothing_to_do_here(lab: Site, sender: Sender) -> None:
    """Its link needs TLS to itself: there is no such route, and its key is no client's."""
    key = load_ed25519(lab.agent_directory / "request.key")
    hub = lab.client().load_bundle().hub
    for path, expected in (("/v1/agents/link", 404), ("/v1/status", 401)):
        message = message_to_sign("GET", path, None)
        fields = sign_message(message, key, hub=hub, created_s=int(time.time()), nonce=secrets.token_bytes(16))
        assert sender.send("GET", path, None, fields).status == expected


def test_nothing_of_the_web_listener_is_here(sender: Sender) -> None:
    for path in ("/readyz", "/v1/bundle", "/log/checkpoint", "/metrics"):
        assert sender("GET", path).status == 404


def test_permissions_are_those_of_the_enrolment(lab: Site) -> None:
    lab.add_client("other-keys", "--key", "nightly")
    request = ask(lab.client())  # what it asks for is refused before anything of it is looked at
    sender = Sender(site=lab, client="other-keys")

    assert sender("POST", "/v1/signatures?wait=1&enough=1", request.body).problem[1] != "policy.profile"
    mine = ask(lab.client("other-keys"))
    assert sender("POST", "/v1/signatures?wait=1&enough=1", mine.body).problem == (403, "policy.profile")


def test_a_standing_that_was_ended_is_ended_here(lab: Site) -> None:
    lab.add_client("gone")
    sender = Sender(site=lab, client="gone")
    assert sender("GET", "/v1/status").status == 200

    succeeded(lab.administer("hub", "revoke", "client", "gone"))

    assert sender("GET", "/v1/status").problem == (401, "identity.revoked")


def test_the_hubs_own_name_stands_in_its_certificate(lab: Site) -> None:
    """Beside those by which clients reach it, which may be a balancer's."""
    host, _, port = load_hub_config(lab.hub_directory).listen_web.rpartition(":")
    context = web_context(lab.client().load_bundle().statement.ca)
    for name in ("hub-1.internal", "localhost"):
        with socket.create_connection((host, int(port)), timeout=10) as stream:
            context.wrap_socket(stream, server_hostname=name).close()


def test_doctor_and_log_say_what_it_means(lab: Site) -> None:
    told = privyseal("doctor", "--dir", lab.hub_directory).out
    assert re.search(r"proxied listener.*sees names, digests and claims, and can sign nothing", told)
    assert "can sign nothing" in "".join(path.read_text() for path in lab.directory.glob("*said*"))


def test_doctor_asks_each_address(lab: Site) -> None:
    """One where nobody listens, one by certificate: the rows say which is which, and signing goes on."""
    text = lab.config.read_text()
    (there,) = lab.client().hub_urls
    several = lab.config.with_name("several.toml")
    several.write_text(text.replace(f'hub = "{there}"', f'hub = ["https://localhost:1", "{there}"]'))

    done = privyseal("doctor", config=several)

    assert done.code != 0
    assert "the hub at https://localhost:1 does not answer" in done.out
    assert f"{there} answers this client" in done.out
    app = copy_of_program(lab.directory)
    succeeded(privyseal("sign", "--key", "demo", app, config=several))
