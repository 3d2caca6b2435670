# SPDX-License-Identifier: Apache-2.0
"""Signing at the command line: in place and beside, every digest, both kinds of key, text and JSON."""

import hashlib
import json
from pathlib import Path

import pytest

from installation import Site, Up, copy_of_program
from interop_tools import run_program
from privyseal.client.receipts import read_receipt, receipt_path
from privyseal.tlog.receipt import parse_receipt
from programs import privyseal, refused, succeeded, unchanged


def test_up_says_what_it_can_and_does_not_prove(up: Up) -> None:
    assert up.ready["ready"] is True
    assert up.ready["client_config"] == str(up.config.resolve())
    assert up.ready["url"].startswith("https://localhost:")
    assert "nothing is proven against the owner" in up.running.log


def test_signing_in_place_leaves_the_program_and_its_receipt(up: Up, app: Path) -> None:
    original = app.read_bytes()

    signed = succeeded(up.run("sign", "--key", "demo", app))

    assert signed.out.splitlines()[0] == f"signed    {app} [test: not for anybody else]"
    assert signed.err == ""
    assert app.read_bytes()[0x200 : len(original)] == original[0x200:]
    assert sorted(path.name for path in app.parent.iterdir()) == ["app.exe", "app.exe.tlog-proof"]


def test_signing_beside_leaves_the_input_alone_and_is_verified_with_its_receipt(up: Up, app: Path) -> None:
    original = app.read_bytes()
    output = app.with_name("signed.exe")

    document = succeeded(up.run("sign", "--key", "demo", app, "-o", output, "--json")).document

    assert app.read_bytes() == original
    assert document["output"] == str(output)
    assert document["receipt"] == str(receipt_path(output))
    assert parse_receipt(read_receipt(receipt_path(output))).index == document["log_index"]
    assert document["sent_bytes"] < 4096, "files do not travel"
    verified = succeeded(up.run("verify", "--json", output)).document
    assert verified["signatures"][0]["artifact"] == document["artifact"]
    assert verified["receipt"]["index"] == document["log_index"]
    assert verified["log_size"] >= document["log_size"]


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_other_digests(up: Up, app: Path, algorithm: str) -> None:
    document = succeeded(up.run("sign", "--key", "demo", "--digest", algorithm, app, "--json")).document

    assert document["artifact"].startswith(f"{algorithm}:")
    assert len(document["artifact"]) == len(algorithm) + 1 + 2 * hashlib.new(algorithm).digest_size
    succeeded(up.run("verify", "--offline", app))


def test_description_and_url_are_in_the_signature(up: Up, app: Path) -> None:
    succeeded(up.run("sign", "--key", "demo", "-d", "Größtes Programm", "-u", "https://example.com/x", app))

    data = app.read_bytes()
    assert "Größtes Programm".encode("utf-16-be") in data
    assert b"https://example.com/x" in data
    succeeded(up.run("verify", app))


def test_a_signed_program_can_be_signed_again(up: Up, app: Path) -> None:
    first = succeeded(up.run("sign", "--key", "demo", app, "--json")).document
    again = succeeded(up.run("sign", "--key", "demo", "--digest", "sha384", app, "--json")).document

    assert again["log_index"] > first["log_index"]
    verified = succeeded(up.run("verify", "--json", app)).document
    assert again["artifact"] in [signature["artifact"] for signature in verified["signatures"]]
    assert verified["receipt"]["index"] == again["log_index"]


def test_a_symbolic_link_stays_and_its_target_is_signed(up: Up, app: Path) -> None:
    link = app.with_name("link.exe")
    link.symlink_to(app)

    succeeded(up.run("sign", "--key", "demo", link))

    assert link.is_symlink()
    assert b"Privyseal demo" in app.read_bytes()


def test_the_mode_of_the_program_stays(up: Up, app: Path) -> None:
    app.chmod(0o751)

    succeeded(up.run("sign", "--key", "demo", app))

    assert app.stat().st_mode & 0o777 == 0o751


def test_a_name_that_begins_with_a_dash_and_has_strange_letters(up: Up, app: Path) -> None:
    strange = app.rename(app.with_name("-ä \x1b[31m\n.exe"))

    succeeded(up.run("sign", "--key", "demo", "--", strange.name, cwd=app.parent))
    verified = succeeded(up.run("verify", "--json", "--", strange.name, cwd=app.parent))

    assert verified.document["file"] == strange.name
    said = succeeded(up.run("verify", "--", strange.name, cwd=app.parent)).out
    assert "\x1b" not in said, "a file's name must not move the terminal's cursor"


def test_verifying_without_any_configuration(up: Up, app: Path) -> None:
    succeeded(up.run("sign", "--key", "demo", app))
    receipt_path(app).unlink()

    refused(privyseal("verify", app, cwd=app.parent), 3, "chain.untrusted")
    root = up.directory / "test-root.pem"
    alone = succeeded(privyseal("verify", "--trust", root, "--json", app, cwd=app.parent)).document

    assert alone["receipt"] is None
    assert len(alone["signatures"]) == 1


def test_the_log_is_whole_and_shows_each_signature(up: Up, app: Path) -> None:
    signed = succeeded(up.run("sign", "--key", "demo", app, "--json")).document

    verified = succeeded(up.run("log", "verify", "--json")).document
    text = succeeded(up.run("log", "verify")).out
    entries = [json.loads(line) for line in succeeded(up.run("log", "show", "--last", "2", "--json")).out.splitlines()]

    assert verified["verified"] is True
    assert verified["open_intents"] == []
    assert verified["entries"]["intent"] == verified["entries"]["result"]
    assert verified["root"] in text
    assert [entry["entry"]["t"] for entry in entries] == ["intent", "result"]
    assert entries[1]["index"] == signed["log_index"]
    assert entries[1]["entry"]["artifact"]["digest"] == signed["artifact"].removeprefix("sha256:")
    assert " result " in succeeded(up.run("log", "show", "--last", "1")).out


def test_status_in_words_and_in_json(up: Up) -> None:
    document = succeeded(up.run("status", "--json")).document
    text = succeeded(up.run("status")).out

    assert [(one["name"], one["online"], one["hardware"]) for one in document["profiles"]] == [("demo", True, False)]
    assert [(one["name"], one["linked"]) for one in document["agents"]] == [("agent", True)]
    assert "software (not hardware)" in text
    assert "traced: a hub that was taken over could use the token" in text


def test_the_configuration_in_force(up: Up, site: Site) -> None:
    shown = succeeded(up.run("config", "show", "--json")).document

    assert shown["file"] == str(up.config)
    assert shown["trust"] == [str(up.directory / "test-root.pem")]
    checked = succeeded(
        privyseal("config", "check", "--hub", site.hub_directory, "--agent", site.agent_directory, "--json")
    )
    assert checked.document["sound"] is True
    assert str(site.config) in succeeded(privyseal("config", "show", "--config", site.config)).out


def test_keys_and_tokens_of_the_agents_host(site: Site) -> None:
    keys = succeeded(privyseal("key", "list", "--dir", site.agent_directory, "--json")).document["keys"]
    tokens = succeeded(privyseal("token", "list", "--dir", site.agent_directory, "--json")).document["tokens"]

    assert [key["id"] for key in keys] == ["01", "02", "03"]
    assert [key["subject"] for key in keys] == ["CN=Lab", "CN=Lab", ""]
    assert [(token["name"], token["state"], token["pin_state"]) for token in tokens] == [("lab", "present", "ok")]
    assert "present" in succeeded(privyseal("token", "list", "--dir", site.agent_directory)).out


def test_signing_with_an_rsa_key_behind_pkcs11(site: Site, app: Path) -> None:
    document = succeeded(site.run("sign", "--key", "release", app, "--json")).document

    assert document["subject"] == "CN=Lab"
    succeeded(site.run("verify", "--trust", site.roots, app))
    succeeded(site.run("log", "verify"))


def test_two_clients_sign_and_neither_needs_the_others_keys(site: Site, tmp_path: Path) -> None:
    site.add_client("second", "--key", "release")
    first, second = copy_of_program(tmp_path, "first.exe"), copy_of_program(tmp_path, "second.exe")

    succeeded(site.run("sign", "--key", "release", first))
    succeeded(site.run("sign", "--key", "release", second, client="second"))

    succeeded(site.run("verify", "--trust", site.roots, second))
    with unchanged(second):
        refused(site.run("sign", "--key", "pinned", second, client="second"), 4, "policy.profile")


@pytest.mark.interop
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_osslsigncode_agrees(site: Site, app: Path, algorithm: str) -> None:
    succeeded(site.run("sign", "--key", "release", "--digest", algorithm, app))

    status, said = run_program("osslsigncode", "verify", "-CAfile", site.roots, "-TSA-CAfile", site.roots, "-in", app)

    assert status == 0, said
    assert "Signature verification: ok" in said
