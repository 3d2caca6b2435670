# SPDX-License-Identifier: Apache-2.0
"""Finding a token and putting it into agent.toml from the command line, held against OpenSC's pkcs11-tool."""

import re
import stat
from pathlib import Path

import pytest

from privyseal.agent.config import load_agent_config
from programs import refused, succeeded
from softhsm import LABEL, PIN, RSA_ID
from terminal import on_terminal
from token_setup import HEAD, Host, make_host, unwritten

pytestmark = pytest.mark.interop


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return make_host(tmp_path)


@pytest.fixture
def added(tmp_path: Path) -> Host:
    return make_host(tmp_path, add=True)


def test_scan_shows_the_token_as_pkcs11_tool_does(host: Host) -> None:
    found = succeeded(host.run("token", "scan", "--module", host.hsm.module, "--json")).document["modules"]

    (module,) = found
    token = next(one for one in module["tokens"] if one["initialized"])
    theirs = host.hsm.run("pkcs11-tool", "--module", host.hsm.module, "--list-slots").decode()
    assert module["problem"] is None
    assert token["label"] == LABEL
    assert f"serial num         : {token['serial']}\n" in theirs
    assert (token["hardware"], token["login_required"], token["pin_state"]) == (False, True, "ok")
    assert {one["id"]: one["subject"] for one in token["certificates"]} == {
        "01": "CN=Lab",
        "02": "CN=Lab",
        "ff": "CN=Privyseal test root (not trusted)",
    }
    text = succeeded(host.run("token", "scan", "--module", host.hsm.module)).out
    assert f"{token['serial']}  SoftHSM v2 (not hardware)  ok" in text
    assert "CN=Lab" in text


def test_scan_finds_the_installed_modules(host: Host) -> None:
    found = succeeded(host.run("token", "scan", "--json")).document["modules"]

    assert Path(host.hsm.module).resolve() in {Path(one["module"]).resolve() for one in found}
    assert all(one["machines"] for one in found)


def test_scan_goes_on_after_what_is_no_module(host: Host) -> None:
    modules = ("--module", host.hsm.directory / "gone.so", "--module", host.config, "--module", host.hsm.module)

    found = succeeded(host.run("token", "scan", *modules, "--json")).document["modules"]

    codes = [one["problem"] and one["problem"]["code"] for one in found]
    assert codes == ["token.module", "token.module", None]
    text = succeeded(host.run("token", "scan", *modules)).out
    assert "there is no file" in text
    assert LABEL in text


def test_add_appends_what_the_agent_reads(host: Host) -> None:
    outcome = succeeded(host.add("--key-id", RSA_ID.hex(), "--profile", "acme-ev", "--test", "--yes", "--json"))

    assert host.config.read_text() == f"{HEAD}\n{outcome.document['added']}"
    config = load_agent_config(host.agent)
    (token,), (key,) = config.token, config.key
    assert (token.name, token.module, token.token_label) == ("hub", host.hsm.module, LABEL)
    assert token.serial == outcome.document["serial"]
    assert token.environment == host.hsm.environment
    assert token.pin_file == str(host.hsm.pin_file)
    assert (key.profile, key.token, key.id, key.test) == ("acme-ev", "hub", "01", True)
    assert "certificate: CN=Lab, until" in outcome.err
    assert PIN.decode() not in outcome.out + outcome.err + host.config.read_text()
    succeeded(host.run("key", "list", "--dir", host.agent))


def test_add_writes_nothing_unless_it_is_told_to(host: Host) -> None:
    with unwritten(host):
        outcome = refused(host.add("--key-id", "01"), 2, "usage.confirm")

    assert '[[token]]\nname = "hub"\n' in outcome.err


def test_add_asks_which_key(host: Host) -> None:
    with unwritten(host):
        error = refused(host.add("--yes"), 8, "token.key_ambiguous").err
        refused(host.add("--key-id", "77", "--yes"), 8, "token.key_not_found")
        refused(host.add("--key-id", "xyz", "--yes"), 2, "usage.key_id")

    assert "01 (release)" in error


def test_add_asks_which_token(host: Host) -> None:
    host.hsm.run(
        "softhsm2-util", "--init-token", "--free", "--label", "other", "--pin", PIN.decode(), "--so-pin", "87654321"
    )

    with unwritten(host):
        error = refused(host.add("--key-id", "01", "--yes"), 2, "token.choose").err
        refused(host.add("--serial", "none such", "--yes"), 2, "token.choose")
        refused(host.run("token", "add", "--dir", host.agent, "--module", host.config), 8, "token.module")

    assert "'other'" in error
    assert "'hub'" in error
    succeeded(host.add("--token-label", "other", "--yes"))
    (token,) = load_agent_config(host.agent).token
    assert token.name == "other"
    assert load_agent_config(host.agent).key == (), "the token has no key yet"


def test_add_refuses_what_is_there_already(added: Host) -> None:
    with unwritten(added):
        refused(added.add("--name", "again", "--key-id", "01", "--yes"), 2, "token.known")
    text = added.config.read_text().replace(str(added.hsm.module), "/elsewhere.so")
    added.config.write_text(text)

    with unwritten(added):
        refused(added.add("--key-id", "01", "--yes"), 2, "config.name")
        refused(added.add("--name", "again", "--key-id", "01", "--yes"), 2, "config.name")
        refused(added.add("--name", "no name", "--key-id", "01", "--yes"), 2, "config.name")


def test_add_presents_a_wrong_pin_once(host: Host) -> None:
    host.hsm.set_pin_file(b"000000")

    with unwritten(host):
        error = refused(host.add("--key-id", "01", "--yes"), 8, "token.pin_incorrect").err
        refused(host.add("--key-id", "01", "--yes"), 8, "token.pin_blocked")

    unlock = next(line for line in error.splitlines() if "token unlock" in line).split("privyseal ", 1)[1].split()
    host.hsm.set_pin_file(PIN)
    refused(host.add("--key-id", "01", "--yes"), 8, "token.pin_blocked")
    succeeded(host.run(*unlock))
    succeeded(host.add("--key-id", "01", "--yes"))


def test_add_refuses_a_wide_pin_file(host: Host) -> None:
    host.hsm.pin_file.chmod(0o644)

    with unwritten(host):
        refused(host.add("--key-id", "01", "--yes"), 8, "token.pin_file")

    assert not (host.agent / "pin-journal").exists(), "no PIN was presented"


def test_add_without_a_pin_needs_a_terminal(host: Host) -> None:
    with unwritten(host):
        refused(
            host.run("token", "add", "--dir", host.agent, "--module", host.hsm.module, "--yes"), 2, "pin.no_terminal"
        )


def test_add_on_a_terminal_asks_and_keeps_the_pin_for_itself(host: Host) -> None:
    place = ("--dir", host.agent, "--module", host.hsm.module, "--key-id", "01")
    answers = {"PIN of token hub:": PIN.decode(), "[y/N]": "no"}

    with unwritten(host):
        code, shown = on_terminal("token", "add", *place, answers=answers, more=host.hsm.environment)
    assert code == 2
    assert "usage.declined" in shown
    code, shown = on_terminal("token", "add", *place, answers=answers | {"[y/N]": "y"}, more=host.hsm.environment)

    assert code == 0, shown
    assert PIN.decode() not in shown
    pin_file = host.agent / "hub.pin"
    assert pin_file.read_bytes() == PIN
    assert stat.S_IMODE(pin_file.stat().st_mode) == 0o600
    assert load_agent_config(host.agent).token[0].pin_file == "hub.pin"
    succeeded(host.run("key", "list", "--dir", host.agent))


def test_a_token_whose_pin_is_typed_asks_on_the_terminal(host: Host) -> None:
    succeeded(host.add("--key-id", "01", "--yes"))
    host.config.write_text(re.sub(r"(?m)^pin_file = .*$", "pin_prompt = true", host.config.read_text()))
    listing = ("key", "list", "--dir", host.agent)

    refused(host.run(*listing), 2, "pin.no_terminal")
    code, shown = on_terminal(*listing, answers={"PIN of token hub": PIN.decode()}, more=host.hsm.environment)

    assert code == 0, shown
    assert "release" in shown
    assert PIN.decode() not in shown
    succeeded(host.run("token", "list", "--dir", host.agent))
