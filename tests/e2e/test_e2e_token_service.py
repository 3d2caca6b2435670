# SPDX-License-Identifier: Apache-2.0
"""Tokens of an agent that runs: taken out of use and back, their workers replaced, reset; each says what comes next."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from installation import Site, add_to_agent, agent_text, make_site
from lab.fault_shim import FaultyToken, around
from lab.shim_orders import every, returns
from privyseal.client.log import LogReader
from privyseal.tlog.entry import Recover, TokenEvent, parse_entry
from programs import privyseal, refused, succeeded, until
from softhsm import EC_ID, RSA_ID, fresh_softhsm

COMMANDS = ("drain", "resume", "recycle", "reset")
GONE = ("C_GetSlotList empty", "C_GetTokenInfo rv e0")


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> FaultyToken:
    return around(fresh_softhsm(tmp_path_factory.mktemp("token")))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, token: FaultyToken) -> Iterator[Site]:
    """An installation whose agent does not run yet."""
    lab = make_site(tmp_path_factory.mktemp("service"))
    try:
        add_to_agent(lab, agent_text(token).replace('name = "lab"\n', 'name = "lab"\nwatch_seconds = 0.2\n'))
        yield lab
        lab.stop()
    finally:
        lab.end()


def command(lab: Site, name: str, *more: str) -> tuple[str, ...]:
    return ("token", name, "lab", "--dir", str(lab.agent_directory), *more)


def done(lab: Site, name: str) -> dict[str, Any]:
    document: dict[str, Any] = succeeded(privyseal(*command(lab, name, "--json"))).document
    return document


def until_problem(lab: Site, code: str) -> None:
    lab.until_status(lambda status: [one for one in status.profiles if f"[{code}]" in one.problem])


@pytest.mark.parametrize("name", COMMANDS)
def test_without_an_agent_each_says_that_none_runs(lab: Site, name: str) -> None:
    said = refused(privyseal(*command(lab, name)), 7, "agent.not_running").err

    assert f"no agent runs in {lab.agent_directory}: " in said
    assert f"privyseal agent run --dir {lab.agent_directory}" in said
    refused(privyseal("token", name, "nobody", "--dir", lab.agent_directory), 2, "token.unknown")


def test_a_drained_token_signs_nothing_also_after_a_restart(lab: Site, token: FaultyToken, app: Path) -> None:
    agent = lab.start_agent()
    lab.until_online("release", "pinned")

    said = succeeded(privyseal(*command(lab, "drain"))).out.splitlines()

    assert said[0].endswith(": it is out of use, also after a restart")
    assert said[1:] == [f"next: privyseal token resume lab --dir {lab.agent_directory} takes it into use"]
    until_problem(lab, "token.drained")
    refused(lab.run("sign", "--key", "release", app), 8, "token.drained")
    agent.stop()
    lab.until_status(lambda status: not status.agents[0].linked)
    logins = token.calls("C_Login")
    lab.start_agent()
    lab.until_status(lambda status: status.agents[0].linked)
    until_problem(lab, "token.drained")
    assert done(lab, "drain")["state"] == "drained"
    for other in ("recycle", "reset"):
        assert done(lab, other)["state"] == "drained", "that takes it back as little as a restart"
    assert token.calls("C_Login") == logins


def test_a_resumed_token_signs(lab: Site, app: Path) -> None:
    said = succeeded(privyseal(*command(lab, "resume"))).out.splitlines()

    assert said[0].endswith(": it is back in use")
    assert said[1].startswith("next: key profiles that sign with it: 2")
    lab.until_online("release", "pinned")
    succeeded(lab.run("sign", "--key", "release", app))


def test_recycled_and_reset_workers_are_new_and_logged_in(lab: Site, token: FaultyToken, app: Path) -> None:
    for name, step in (("recycle", ""), ("reset", "worker")):
        before = token.calls("C_Initialize"), token.calls("C_Login")
        found = done(lab, name)
        assert (found["state"], found["profiles"], found["step"]) == ("ready", 2, step)
        assert (token.calls("C_Initialize"), token.calls("C_Login")) == (before[0] + 1, before[1] + 1)
        succeeded(lab.run("sign", "--key", "release", app))


def test_what_is_done_to_a_token_that_is_not_there_says_why_it_cannot_sign(lab: Site, token: FaultyToken) -> None:
    token.break_with(*GONE)
    until_problem(lab, "token.not_found")

    for name in ("resume", "recycle", "reset"):
        assert "and it cannot sign: " in refused(privyseal(*command(lab, name)), 8, "token.not_found").err
    token.heal()
    lab.until_online("release")


def test_a_token_in_quarantine_is_taken_as_it_is_now(lab: Site, token: FaultyToken, app: Path) -> None:
    token.break_with(*GONE)
    until_problem(lab, "token.not_found")
    token.hsm.pkcs11_tool("--delete-object", "--type", "cert", "--id", EC_ID.hex())
    token.heal()
    until_problem(lab, "token.other_certificates")
    refused(privyseal(*command(lab, "recycle")), 8, "token.other_certificates")

    assert done(lab, "resume")["profiles"] == 1, "the other one has lost its certificate"
    lab.until_online("release")
    succeeded(lab.run("sign", "--key", "release", app))


def test_all_of_it_is_on_record(lab: Site) -> None:
    reader = LogReader(lab.client())

    def look() -> list[str] | None:
        entries = [parse_entry(entry) for _, entry in reader.entries(0, reader.checkpoint().size)]
        found = [one.event for one in entries if isinstance(one, TokenEvent)]
        found += [f"{one.step} {one.code}" for one in entries if isinstance(one, Recover) and one.code == "token.reset"]
        return found if {"drained", "resumed", "recycled", "quarantined", "worker token.reset"} <= set(found) else None

    assert until(look, "what was done to the token, in the log").count("drained") == 1


def test_many_signatures_in_a_row_are_told_as_one_document(lab: Site, token: FaultyToken) -> None:
    """Whatever has to be recovered from meanwhile."""
    lab.running["agent"].stop()
    token.break_with(returns("C_SignInit", 0x30, every(4)))

    told = succeeded(privyseal(*command(lab, "test", "--id", RSA_ID.hex(), "--soak", "8", "--yes", "--json"))).document

    token.heal()
    assert (told["signed"], told["wrong"]) == (8, 0)
    assert told["recoveries"] == {"session": 2}
    lab.start_agent()
    lab.until_online("release")
