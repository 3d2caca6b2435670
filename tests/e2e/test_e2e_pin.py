# SPDX-License-Identifier: Apache-2.0
"""A wrong PIN over a real PKCS#11 module, through every restart: it is presented once, counted where it arrives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from installation import Site, add_to_agent, agent_text, make_site
from lab.fault_shim import FaultyToken, around
from programs import privyseal, refused, succeeded, unchanged
from softhsm import PIN, fresh_softhsm

RESTARTS = 5
WRONG = b"wrong-canary-902655"


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> FaultyToken:
    return around(fresh_softhsm(tmp_path_factory.mktemp("pin-token")))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, token: FaultyToken) -> Iterator[Site]:
    """An installation whose agent does not run yet."""
    lab = make_site(tmp_path_factory.mktemp("pin"))
    try:
        add_to_agent(lab, agent_text(token))
        yield lab
        lab.stop()
    finally:
        lab.end()


def until_problem(lab: Site, code: str) -> None:
    lab.until_status(lambda status: [one for one in status.profiles if f"[{code}]" in one.problem])


def test_the_wrong_pin_reaches_the_token_once(lab: Site, token: FaultyToken, app: Path) -> None:
    token.hsm.set_pin_file(WRONG)
    for restart in range(RESTARTS):
        agent = lab.start_agent()
        code = "token.pin_incorrect" if restart == 0 else "token.pin_blocked"
        until_problem(lab, code)
        with unchanged(app):
            refused(lab.run("sign", "--key", "release", app), 8, code)
            refused(lab.run("sign", "--key", "pinned", app), 8, code)
        agent.stop()
        lab.until_status(lambda status: not status.agents[0].linked)

    assert token.calls("C_Login") == 1
    refused(privyseal("key", "list", "--dir", lab.agent_directory), 8, "token.pin_blocked")
    assert token.calls("C_Login") == 1


def test_a_person_lets_it_go_on(lab: Site, token: FaultyToken, app: Path) -> None:
    before = token.calls("C_Login")
    token.hsm.set_pin_file(PIN)
    refused(privyseal("token", "unlock", "no-such-token", "--dir", lab.agent_directory), 2, "token.unknown")

    unlocked = succeeded(privyseal("token", "unlock", "lab", "--dir", lab.agent_directory, "--json")).document

    assert unlocked["unlocked"] is True
    assert token.calls("C_Login") == before, "unlocking presents no PIN"
    lab.start_agent()
    lab.until_online("release", "pinned")
    assert token.calls("C_Login") == before + 1
    succeeded(lab.run("sign", "--key", "release", app))


def test_no_pin_was_repeated_anywhere(lab: Site) -> None:
    told = [path for path in lab.directory.rglob("*") if path.is_file()]

    assert {"hub.db", "journal.db", "pin-journal", "agent-said.err"} <= {path.name for path in told}
    assert [path for path in told if WRONG in path.read_bytes() or PIN in path.read_bytes()] == []
