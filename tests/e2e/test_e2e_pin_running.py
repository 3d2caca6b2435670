# SPDX-License-Identifier: Apache-2.0
"""PINs of an agent that runs: handed in, allowed again, changed, without a restart; and none of them is shown."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from canaries import finds, shown
from installation import Site, add_to_agent, agent_text, make_site
from lab.fault_shim import FaultyToken, around
from privyseal.client.log import LogReader
from privyseal.identity.keyfile import load_ed25519, public_key_text
from privyseal.tlog.entry import PinEvent, parse_entry
from programs import privyseal, refused, succeeded, until
from softhsm import PIN, fresh_softhsm
from terminal import on_terminal
from token_setup import openssl

WRONG = b"wrong-canary-902655"
OTHER = b"other-canary-445190"
NEW = b"fresh-canary-552164"
TYPED = b"typed-canary-120833"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> FaultyToken:
    return around(fresh_softhsm(tmp_path_factory.mktemp("token")))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, token: FaultyToken) -> Iterator[Site]:
    """An installation whose agent asks for a PIN to be typed."""
    lab = make_site(tmp_path_factory.mktemp("pins"))
    try:
        prompted = re.sub(r"(?m)^pin_file = .*$", "pin_prompt = true", agent_text(token))
        add_to_agent(lab, prompted)
        lab.start_agent()
        yield lab
        lab.stop()
    finally:
        lab.end()


def unlock(lab: Site, *more: str) -> tuple[str, ...]:
    return ("token", "unlock", "lab", "--dir", str(lab.agent_directory), *more)


def until_problem(lab: Site, code: str) -> None:
    lab.until_status(lambda status: [one for one in status.profiles if f"[{code}]" in one.problem])


def recorded(lab: Site, count: int) -> list[str]:
    """Events about PINs in the log, once there are so many."""
    reader = LogReader(lab.client())

    def look() -> list[str] | None:
        entries = [parse_entry(entry) for _, entry in reader.entries(0, reader.checkpoint().size)]
        found = [entry.event for entry in entries if isinstance(entry, PinEvent)]
        return found if len(found) >= count else None

    return until(look, f"{count} entries about PINs")


def test_a_token_with_a_prompt_waits_for_somebody(lab: Site, token: FaultyToken, app: Path) -> None:
    until_problem(lab, "token.pin_missing")

    refused(lab.run("sign", "--key", "release", app), 8, "token.pin_missing")
    refused(privyseal(*unlock(lab)), 2, "pin.no_terminal")
    refused(privyseal(*unlock(lab, "--prompt", "--json"), told=PIN.decode()), 2, "pin.no_terminal")
    assert token.calls("C_Login") == 0


def test_a_wrong_pin_that_is_typed_is_told_at_once_and_not_repeated(lab: Site, token: FaultyToken) -> None:
    code, said = on_terminal(*unlock(lab), answers={"PIN of token lab": WRONG.decode()})

    assert code == 8, said
    assert "[token.pin_incorrect]" in said
    assert not shown(WRONG, said.encode())
    assert token.calls("C_Login") == 1
    until_problem(lab, "token.pin_incorrect")


def test_the_same_wrong_pin_again_is_not_presented(lab: Site, token: FaultyToken) -> None:
    code, said = on_terminal(*unlock(lab), answers={"PIN of token lab": WRONG.decode()})

    assert (code, "[token.pin_blocked]" in said) == (8, True), said
    assert token.calls("C_Login") == 1


def test_the_right_pin_is_tried_at_once_and_everything_works(lab: Site, token: FaultyToken, app: Path) -> None:
    code, said = on_terminal(*unlock(lab), answers={"PIN of token lab": PIN.decode()})

    assert code == 0, said
    assert "the token took its PIN; signing keys: 3" in said
    assert token.calls("C_Login") == 2
    lab.until_online("release", "pinned")
    succeeded(lab.run("sign", "--key", "release", app))


def test_a_pin_that_is_changed_is_used_at_once(lab: Site, token: FaultyToken, app: Path) -> None:
    change = ("token", "pin", "change", "lab", "--dir", lab.agent_directory)
    refused(privyseal(*change), 2, "pin.no_terminal")
    prompts = {"the NEW one: ": TYPED.decode(), "the NEW one once more": "another"}
    code, said = on_terminal(*change, answers=prompts)
    assert (code, "[pin.differs]" in said) == (2, True), said

    code, said = on_terminal(*change, answers={"the NEW one: ": TYPED.decode(), "once more": TYPED.decode()})

    assert code == 0, said
    assert "put the new PIN to where agent.toml says" in said
    assert not shown(TYPED, said.encode())
    succeeded(lab.run("sign", "--key", "release", app))


def test_from_a_file_a_pin_is_changed_and_kept(lab: Site, token: FaultyToken, app: Path) -> None:
    """The agent comes to a PIN file, which is what most have."""
    lab.running["agent"].stop()
    token.hsm.set_pin_file(TYPED)
    add_to_agent(lab, agent_text(token))
    lab.start_agent()
    lab.until_online("release")
    fresh = token.hsm.directory / "fresh"
    fresh.touch(mode=0o600)
    fresh.write_bytes(NEW + b"\n")
    change = ("token", "pin", "change", "lab", "--dir", lab.agent_directory, "--new-pin-file", fresh)

    changed = succeeded(privyseal(*change, "--json")).document

    assert changed["kept"] == str(token.hsm.pin_file)
    assert token.hsm.pin_file.read_bytes() == NEW
    succeeded(lab.run("sign", "--key", "release", app))
    refused(privyseal(*change), 8, "token.pin_new")
    fresh.write_bytes(b"abc")
    refused(privyseal(*change), 8, "token.pin_length")
    fresh.chmod(0o644)
    refused(privyseal(*change), 8, "token.pin_file")
    succeeded(lab.run("sign", "--key", "release", app))
    fresh.unlink()


def test_a_refused_pin_file_is_allowed_again_without_a_restart(lab: Site, token: FaultyToken, app: Path) -> None:
    token.hsm.set_pin_file(OTHER)
    refused(privyseal(*unlock(lab)), 8, "token.pin_incorrect")
    until_problem(lab, "token.pin_incorrect")
    token.hsm.set_pin_file(NEW)
    refused(lab.run("sign", "--key", "release", app), 8, "token.pin_incorrect")

    unlocked = succeeded(privyseal(*unlock(lab), "--json")).document

    assert (unlocked["unlocked"], unlocked["tried"]) == (True, True)
    lab.until_online("release", "pinned")
    succeeded(lab.run("sign", "--key", "release", app))


def test_without_an_agent_a_pin_is_changed_on_the_token_itself(lab: Site, token: FaultyToken) -> None:
    lab.running["agent"].stop()
    fresh = token.hsm.directory / "fresh"
    fresh.touch(mode=0o600)
    fresh.write_bytes(TYPED)
    refused(privyseal(*unlock(lab, "--prompt")), 7, "agent.not_running")

    changed = succeeded(
        privyseal("token", "pin", "change", "lab", "--dir", lab.agent_directory, "--new-pin-file", fresh, "--json")
    ).document

    assert changed["kept"] == str(token.hsm.pin_file)
    assert token.hsm.pin_file.read_bytes() == TYPED
    fresh.unlink()
    lab.start_agent()
    lab.until_online("release", "pinned")


def test_a_pin_that_no_person_knows(lab: Site, token: FaultyToken, app: Path) -> None:
    """Its recovery copy opens with two of three keys, one of them the hub's authority key."""
    folder = lab.directory / "keys"
    folder.mkdir()
    for name in ("second", "third"):
        openssl("genpkey", "-algorithm", "ed25519", "-out", folder / f"{name}.key")
        (folder / f"{name}.key").chmod(0o600)
        openssl("pkey", "-in", folder / f"{name}.key", "-pubout", "-out", folder / f"{name}.pub")
    own = public_key_text(load_ed25519(lab.authority).public_key().public_bytes_raw())
    (folder / "third.pub").write_text(
        public_key_text(load_ed25519(folder / "third.key").public_key().public_bytes_raw()) + "\n"
    )
    to = ("--to", own, "--to", folder / "second.pub", "--to", folder / "third.pub")
    custody = ("token", "pin", "custody", "lab", "--dir", lab.agent_directory, "--threshold", "2")
    refused(privyseal(*custody, "--to", lab.authority), 2, "file.not_a_key")
    refused(privyseal(*custody, "--to", "ed25519:AAAA"), 2, "key.text")

    done = succeeded(privyseal(*custody, *to, "--json")).document

    succeeded(lab.run("sign", "--key", "release", app))
    copy = Path(done["recovery"])
    assert copy.parent == lab.agent_directory
    recover = ("token", "pin", "recover", copy)
    refused(privyseal(*recover, "--authority", lab.authority), 3, "recovery.threshold")
    keys = ("--authority", lab.authority, "--authority", folder / "third.key")
    recovered = succeeded(privyseal(*recover, *keys))
    pin = recovered.out.removesuffix("\n").encode()
    assert token.hsm.pin_file.read_bytes() == pin
    assert not shown(pin, recovered.err.encode())
    assert finds(pin, lab, token.hsm.directory, but=(token.hsm.pin_file,)) == []


def test_all_of_it_is_on_record_and_no_pin_is_anywhere(lab: Site, token: FaultyToken) -> None:
    prompted = ["blocked", "unlocked", "refused", "unlocked", "blocked", "unlocked", "changed"]
    from_file = ["changed", "unlocked", "refused", "unlocked", "changed", "custody"]

    assert recorded(lab, len(prompted + from_file)) == prompted + from_file
    for pin in (PIN, WRONG, OTHER, NEW, TYPED):
        assert finds(pin, lab, token.hsm.directory, but=(token.hsm.pin_file,)) == []
