# SPDX-License-Identifier: Apache-2.0
"""Joining: whoever stands in between is noticed, a code works once and not for long, and nothing stays of a failure."""

import hashlib
import http.server
import json
import secrets
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from api_client import web_of
from installation import Site, Up, free_port, make_site
from privyseal.identity.authority import Invitation, seal_authority
from privyseal.identity.bundle import load_bundle
from privyseal.identity.joining import JoinCodeText, format_join_code, parse_join_code
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import system_clock
from programs import privyseal, refused, succeeded, until


@contextmanager
def interceptor(bundle: bytes) -> Iterator[str]:
    """A server with a certificate of another authority, which hands out a trust bundle; its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(bundle)))
            self.end_headers()
            self.wfile.write(bundle)

        def log_message(self, *_: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # the client hangs up, as it should

    with Server(("127.0.0.1", 0), Handler) as server:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"https://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()


def misled(code: str, url: str) -> str:
    """The same join code, sent to another address (by a forged DNS answer, say)."""
    return format_join_code(replace(parse_join_code(code, "client"), web_url=url))


def test_an_interceptor_with_a_bundle_of_its_own(site: Site, up: Up, tmp_path: Path) -> None:
    code = site.invite("client", "misled")
    bundle = (up.directory / "hub" / "bundle.json").read_bytes()

    with interceptor(bundle) as url:
        outcome = refused(
            privyseal("client", "join", "--dir", tmp_path / "home", told=misled(code, url)), 3, "bundle.hash"
        )

    assert "do not join" in outcome.err
    assert not (tmp_path / "home").exists()


def test_an_interceptor_with_the_true_bundle(site: Site, tmp_path: Path) -> None:
    """The bundle is believed, and with it only the CA that it names: the secret is not sent to a stranger."""
    code = site.invite("client", "misled2")
    bundle = (site.hub_directory / "bundle.json").read_bytes()

    with interceptor(bundle) as url:
        refused(privyseal("client", "join", "--dir", tmp_path / "home", told=misled(code, url)), 6, "hub.certificate")

    succeeded(privyseal("client", "join", "--dir", tmp_path / "home", told=code))


@pytest.mark.parametrize("bundle", [b"", b"{}", b"\0" * 1000, b"[" * 100_000, b"x" * 2_000_000])
def test_an_interceptor_with_anything_else(site: Site, tmp_path: Path, bundle: bytes) -> None:
    code = site.invite("client", "misled3")

    with interceptor(bundle) as url:
        refused(
            privyseal("client", "join", "--dir", tmp_path / "home", told=misled(code, url)), 1, "envelope.malformed"
        )


def test_nobody_at_that_address(site: Site, tmp_path: Path) -> None:
    code = misled(site.invite("client", "alone"), f"https://localhost:{free_port()}")

    refused(privyseal("client", "join", "--dir", tmp_path / "home", told=code), 7, "hub.unreachable")


@pytest.mark.parametrize("place", ["/dev/null/home", "file/home"])
def test_keys_that_cannot_be_kept(site: Site, tmp_path: Path, place: str) -> None:
    """Before the code is spent: it can be used again from a better place."""
    (tmp_path / "file").touch()
    code = site.invite("client", "placeless")

    refused(privyseal("client", "join", "--dir", tmp_path / place, told=code), 2, "join.unwritable")

    succeeded(privyseal("client", "join", "--dir", tmp_path / "home", told=code))


def test_a_secret_is_not_repeated_when_it_is_given_in_the_wrong_place(site: Site, tmp_path: Path) -> None:
    code = site.invite("client", "careless")

    outcome = refused(privyseal("client", "join", code, "--dir", tmp_path / "home"), 2, "usage.arguments")

    assert code not in outcome.err + outcome.out


def test_who_joined_is_in_the_log_under_a_salted_hash(site: Site) -> None:
    site.add_client("logged-name")

    shown = succeeded(site.run("log", "show", "--last", "1", "--json")).out

    entry = json.loads(shown)["entry"]
    assert (entry["t"], entry["action"], entry["role"]) == ("enrol", "join", "client")
    assert "logged-name" not in shown


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 61, "ä", "a/b", "a\nb"])
def test_a_name_that_nobody_can_have(site: Site, name: str) -> None:
    place = ("--dir", site.hub_directory, "--authority", site.authority, "--json")

    refused(privyseal("hub", "invite", *place, "client", name), 2, "member.name")


def test_a_code_that_was_not_used_in_time(site: Site, tmp_path: Path) -> None:
    bundle = load_bundle(site.hub_directory / "bundle.json")
    web = web_of(site.client())
    secret = secrets.token_bytes(16)
    now_ms = system_clock()
    invitation = Invitation(
        hub=bundle.hub,
        issued=now_ms,
        not_after=now_ms + 400,
        role="client",
        name="late",
        profiles=("*",),
        secret_sha256=hashlib.sha256(secret).hexdigest(),
    )
    sealed = seal_authority(invitation, (load_ed25519(site.authority),))
    assert web("POST", "/v1/authority", sealed).status == 200
    until(lambda: system_clock() > invitation.not_after, "the end of the invitation")

    code = JoinCodeText(role="client", web_url=web.url, bundle_sha256=bundle.sha256, secret=secret)
    outcome = privyseal("client", "join", "--dir", tmp_path / "home", told=format_join_code(code))

    refused(outcome, 6, "join.refused")
    assert not list((tmp_path / "home").rglob("*.key")), "keys of no use would stand in the way of the next attempt"
    refused_again = web("POST", "/v1/authority", sealed)
    assert refused_again.problem == (422, "authority.expired")


def test_an_agent_without_a_key_profile_says_that_nothing_can_be_signed(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    try:
        told = site.start_agent().until_event(event="no key profile: nothing can be signed here")
    finally:
        site.end()

    assert told["level"] == "warning"
    assert "privyseal token add" in told["next"]
