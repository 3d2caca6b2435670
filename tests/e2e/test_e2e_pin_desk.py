# SPDX-License-Identifier: Apache-2.0
"""A PIN from a desk: typed where an authority key is, sealed to the agent, passed on by a hub that never sees it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from canaries import finds, in_memory, shown
from installation import Site, add_to_agent, agent_text, make_site
from lab.fault_shim import FaultyToken, around
from privyseal.client.administration import Administration
from privyseal.client.log import LogReader
from privyseal.errors import MalformedInputError
from privyseal.identity.authority import UnlockQuestion
from privyseal.identity.keyfile import load_ed25519
from privyseal.tlog.entry import PinEvent, parse_entry
from privyseal.wire.dsse import key_id
from programs import privyseal, refused, succeeded, until
from softhsm import PIN, fresh_softhsm
from terminal import on_terminal

WRONG = b"wrong-canary-774120"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> FaultyToken:
    token = around(fresh_softhsm(tmp_path_factory.mktemp("token")))
    token.hsm.pin_file.unlink()
    return token


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, token: FaultyToken) -> Iterator[Site]:
    """An installation whose agent asks for a PIN, and whose desk is where the client is."""
    lab = make_site(tmp_path_factory.mktemp("desk"))
    try:
        add_to_agent(lab, re.sub(r"(?m)^pin_file = .*$", "pin_prompt = true", agent_text(token)))
        lab.start_agent()
        lab.until_status(lambda status: [one for one in status.profiles if "[token.pin_missing]" in one.problem])
        yield lab
        lab.stop()
    finally:
        lab.end()


def desk(lab: Site, *more: str | Path) -> tuple[str | Path, ...]:
    return ("token", "unlock", "lab", "--agent", "lab", "--authority", lab.authority, "--config", lab.config, *more)


def hand_in(lab: Site, pin: bytes) -> tuple[int, str]:
    return on_terminal(*desk(lab), answers={"PIN of token lab (serial": pin.decode()})


def test_the_agent_s_key_must_be_known_first(lab: Site, token: FaultyToken) -> None:
    refused(privyseal(*desk(lab)), 2, "unlock.agent_unknown")
    shown_key = succeeded(privyseal("agent", "show", "--dir", lab.agent_directory, "--json")).document
    trust = ("hub", "trust", "--config", lab.config, "--authority", lab.authority)
    refused(privyseal(*trust, "--agent", "lab=x25519:AAAA"), 2, "key.text")
    refused(privyseal(*trust, "--forget-agent", "other"), 2, "unlock.agent_unknown")

    told = succeeded(privyseal(*trust, "--agent", f"lab={shown_key['sealing_key']}", "--json")).document

    assert told["agents"] == [{"name": "lab", "key": shown_key["sealing_key"]}]
    refused(privyseal(*desk(lab)), 2, "pin.no_terminal")
    assert token.calls("C_Login") == 0


def test_a_wrong_pin_is_told_and_blocks(lab: Site, token: FaultyToken) -> None:
    code, said = hand_in(lab, WRONG)

    assert (code, "[token.pin_incorrect]" in said) == (8, True), said
    assert not shown(WRONG, said.encode())
    assert token.calls("C_Login") == 1


def test_the_right_pin_makes_it_sign(lab: Site, token: FaultyToken, app: Path) -> None:
    code, said = hand_in(lab, PIN)

    assert code == 0, said
    assert "took its PIN; signing keys: 3" in said
    assert token.calls("C_Login") == 2
    lab.until_online("release", "pinned")
    succeeded(lab.run("sign", "--key", "release", app))


def test_who_signed_for_it_is_on_record(lab: Site) -> None:
    reader = LogReader(lab.client())

    def look() -> list[PinEvent] | None:
        entries = [parse_entry(entry) for _, entry in reader.entries(0, reader.checkpoint().size)]
        found = [entry for entry in entries if isinstance(entry, PinEvent)]
        return found if len(found) == 4 else None

    authority = key_id(load_ed25519(lab.authority).public_key().public_bytes_raw())
    events = until(look, "four entries about PINs")
    unlocked = ("unlocked", authority)
    assert [(one.event, one.authority) for one in events] == [("blocked", ""), unlocked, ("refused", ""), unlocked]


def test_the_hub_never_saw_a_pin(lab: Site, token: FaultyToken) -> None:
    hub = lab.running["hub"].process.pid
    assert in_memory(b"hub.example/lab", hub), "this looks where the hub keeps things"

    for pin in (PIN, WRONG):
        assert not in_memory(pin, hub)
        assert finds(pin, lab, token.hsm.directory) == []


def test_others_cannot(lab: Site, token: FaultyToken, tmp_path: Path) -> None:
    place = ("--dir", tmp_path / "hub", "--authority", tmp_path / "authority.key", "--name", "hub.example/other")
    succeeded(privyseal("hub", "init", *place, "--json"))
    before = token.calls("C_Login")
    foreign = ("--agent", "lab", "--authority", tmp_path / "authority.key", "--config", lab.config)
    refused(privyseal("token", "unlock", "lab", *foreign), 3, "authority.quorum")
    refused(
        privyseal("token", "unlock", "lab", *foreign, "--bundle", tmp_path / "hub" / "bundle.json"),
        2,
        "unlock.agent_unknown",
    )
    refused(privyseal("token", "unlock", "nobody", *desk(lab)[3:]), 2, "token.unknown")
    refused(privyseal(*desk(lab), "--dir", lab.agent_directory), 2, "usage.arguments")
    refused(privyseal("token", "unlock", "lab"), 2, "usage.arguments")

    administration = Administration(
        bundle=lab.client().load_bundle(), web_url=lab.client().web_urls[0], authority_paths=(lab.authority,)
    )
    question = UnlockQuestion(hub="hub.example/lab", issued=0, not_after=2**50, agent="lab", token="lab")
    with pytest.raises(MalformedInputError) as caught:  # at the wrong door
        administration._decree(question)
    assert caught.value.code == "authority.misplaced"

    lab.running["agent"].stop()
    lab.until_status(lambda status: not status.agents[0].linked)
    refused(privyseal(*desk(lab)), 7, "unlock.agent_offline")
    assert token.calls("C_Login") == before


def test_after_a_restart_the_pin_is_gone_and_a_desk_gives_it_again(lab: Site, app: Path) -> None:
    lab.start_agent()
    lab.until_status(lambda status: [one for one in status.profiles if "[token.pin_missing]" in one.problem])

    code, said = hand_in(lab, PIN)

    assert code == 0, said
    lab.until_online("release")
    succeeded(lab.run("sign", "--key", "release", app))


def test_an_agent_that_is_forgotten_gets_no_pin(lab: Site) -> None:
    trust = ("hub", "trust", "--config", lab.config, "--authority", lab.authority)
    assert succeeded(privyseal(*trust, "--forget-agent", "lab", "--json")).document["agents"] == []

    refused(privyseal(*desk(lab)), 2, "unlock.agent_unknown")
