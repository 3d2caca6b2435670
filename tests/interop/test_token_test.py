# SPDX-License-Identifier: Apache-2.0
"""`privyseal token test` on a SoftHSM2 token, well and ill: what a person learns of the own token."""

import asyncio
import json
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from lab.shim_orders import at
from privyseal.agent.endurance import Endured, endure
from privyseal.cli.token_host import choose_key
from privyseal.errors import TokenError
from privyseal.tokens.factory import open_token
from programs import privyseal, refused, succeeded
from softhsm import EC_ID, PIN, fresh_softhsm


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


def agent_directory(faulty: FaultyToken, directory: Path) -> Path:
    """An agent that has the token in agent.toml, and has joined no hub."""
    directory.mkdir()
    environment = ", ".join(f"{name} = {json.dumps(value)}" for name, value in faulty.config().environment.items())
    (directory / "agent.toml").write_text(
        'name = "pi"\nhub = "https://hub.example"\nweb = "https://hub.example"\n\n[[token]]\nname = "lab"\n'
        f'kind = "pkcs11"\nmodule = {json.dumps(str(faulty.library))}\ntoken_label = "hub"\n'
        f"pin_file = {json.dumps(str(faulty.hsm.pin_file))}\nenvironment = {{ {environment} }}\n"
    )
    return directory


def test_a_token_that_is_well(faulty: FaultyToken, tmp_path: Path) -> None:
    agent = agent_directory(faulty, tmp_path / "agent")
    arguments = ("token", "test", "lab", "--dir", agent, "--id", EC_ID.hex(), "--soak", "20", "--yes")

    report = succeeded(privyseal(*arguments, "--json")).document
    said = succeeded(privyseal(*arguments)).out

    assert (report["asked"], report["signed"], report["wrong"], report["logins"]) == (20, 20, 0, 1)
    assert (report["failures"], report["recoveries"]) == ({}, {})
    assert 0 < report["milliseconds"]["p50"] <= report["milliseconds"]["p100"]
    assert "signed   20 of 20" in said
    assert "no fault, nothing to recover from" in said
    assert faulty.calls("C_Login") == 2, "one for each run"


def test_nobody_is_surprised_by_signatures(faulty: FaultyToken, tmp_path: Path) -> None:
    agent = agent_directory(faulty, tmp_path / "agent")

    refused(privyseal("token", "test", "lab", "--dir", agent, "--id", EC_ID.hex()), 2, "usage.confirm")
    refused(privyseal("token", "test", "lab", "--dir", agent, "--soak", "0", "--yes"), 2, "usage.arguments")

    assert faulty.calls("C_Sign") == 0


def tried(faulty: FaultyToken, count: int) -> Endured:
    async def run() -> Endured:
        token = open_token(faulty.config(sign_seconds=0.5))
        try:
            return await endure(token, lambda keys: choose_key(keys, EC_ID), count, lambda _done: None)
        finally:
            await token.close()

    return asyncio.run(run())


def test_a_token_that_is_ill_and_comes_back(faulty: FaultyToken) -> None:
    faulty.break_with(f"C_Sign rv 30 {at(3)}", f"C_SignInit rv b3 {at(6)}")

    found = tried(faulty, 10)

    assert (found.asked, len(found.seconds)) == (10, 9)
    assert found.failures == {"token.failed C_Sign": 1}
    assert found.recoveries == {"session": 2}
    assert (found.logins, found.workers) == (3, 1), "a session that was lost is logged in again"


def test_a_token_that_lies(faulty: FaultyToken) -> None:
    faulty.break_with("C_Sign short")

    found = tried(faulty, 3)

    assert not found.seconds
    assert found.failures == {"token.failed C_Sign": 3}


def test_a_wrong_pin_ends_it_after_one_attempt(faulty: FaultyToken) -> None:
    faulty.hsm.set_pin_file(b"000000")
    with pytest.raises(TokenError) as caught:
        tried(faulty, 10)

    assert caught.value.code == "token.pin_incorrect"
    assert faulty.calls("C_Login") == 1
    assert PIN.decode() not in str(caught.value)
