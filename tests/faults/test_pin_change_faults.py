# SPDX-License-Identifier: Apache-2.0
"""C_SetPIN hangs, crashes or is killed, before or after the token changed its PIN: no PIN is lost, no try is burnt."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from lab.shim_orders import aborts, crashes_after, hangs, hangs_after, returns
from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism
from privyseal.tokens.ckr import LunaRv, Rv
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.supervisor import WorkerToken
from softhsm import ALWAYS_ID, PIN, fresh_softhsm

NEW = b"fresh-canary-5521"


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


def new_pin(pin: bytes = NEW) -> PinBuffer:
    filled = PinBuffer()
    filled.fill(pin)
    return filled


async def change(faulty: FaultyToken, *orders: str) -> str:
    """Change the PIN under these orders; the code of what it failed with. Nothing runs afterwards."""
    faulty.break_with(*orders)
    token = open_token(faulty.config(call_seconds=2.5))
    try:
        with pytest.raises(TokenError) as caught:
            await token.change_pin(new_pin())
    finally:
        faulty.heal()
        await token.close()
    return caught.value.code


async def login(faulty: FaultyToken) -> str:
    token = open_token(faulty.config())
    try:
        await token.keys()
    except TokenError as error:
        return error.code
    finally:
        await token.close()
    return "accepted"


def pin_files(faulty: FaultyToken) -> dict[str, bytes]:
    found = [path for path in faulty.hsm.directory.glob("pin*") if path.name in ("pin", "pin.new")]
    return {path.name: path.read_bytes().strip() for path in found}


def clear(faulty: FaultyToken, serial: str) -> None:
    PinJournal(str(faulty.hsm.journal)).clear(serial)


async def serial_of(faulty: FaultyToken) -> str:
    token = open_token(faulty.config())
    try:
        return (await token.info()).serial
    finally:
        await token.close()


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (hangs("C_SetPIN"), "token.timeout"),
        (aborts("C_SetPIN"), "token.crashed"),
        (returns("C_SetPIN", 0x5), "token.failed"),
    ],
)
async def test_a_change_that_fails_before_the_token_took_it_leaves_the_old_pin(
    faulty: FaultyToken, order: str, code: str
) -> None:
    assert await change(faulty, order) == code

    assert pin_files(faulty) == {"pin": PIN, "pin.new": NEW}
    assert [await login(faulty), await login(faulty)] == ["accepted", "accepted"]
    assert pin_files(faulty) == {"pin": PIN}
    assert faulty.calls("C_SetPIN") == 1


@pytest.mark.parametrize(
    ("order", "code"), [(hangs_after("C_SetPIN"), "token.timeout"), (crashes_after("C_SetPIN"), "token.crashed")]
)
async def test_a_change_that_fails_after_the_token_took_it_keeps_the_new_pin(
    faulty: FaultyToken, order: str, code: str
) -> None:
    assert await change(faulty, order) == code

    assert pin_files(faulty) == {"pin": PIN, "pin.new": NEW}
    before = faulty.calls("C_Login")
    assert [await login(faulty) for _ in range(3)] == ["token.pin_incorrect", "token.pin_blocked", "token.pin_blocked"]
    assert faulty.calls("C_Login") == before + 1, "one try, then a person must act"
    clear(faulty, await serial_of(faulty))
    assert [await login(faulty), await login(faulty)] == ["accepted", "accepted"]
    assert pin_files(faulty) == {"pin": NEW}


async def test_after_an_unknown_change_nothing_is_tried_where_few_attempts_are_left(faulty: FaultyToken) -> None:
    assert await change(faulty, hangs_after("C_SetPIN")) == "token.timeout"
    before = faulty.calls("C_Login")

    faulty.break_with("C_GetTokenInfo flags 10000")
    assert await login(faulty) == "token.pin_blocked"
    assert faulty.calls("C_Login") == before


@pytest.mark.parametrize("value", [0xA1, 0xA2, 0x1B8])
async def test_a_new_pin_that_the_token_does_not_take_is_forgotten(faulty: FaultyToken, value: int) -> None:
    assert await change(faulty, returns("C_SetPIN", value)) == "token.pin_new"

    assert pin_files(faulty) == {"pin": PIN}
    history = PinJournal(str(faulty.hsm.journal)).history(await serial_of(faulty))
    assert (history.unknown, history.changing, history.blocked) == (0, "", False)
    assert await login(faulty) == "accepted"


async def test_an_old_pin_that_c_set_pin_refuses_counts_as_an_attempt(faulty: FaultyToken) -> None:
    assert await change(faulty, returns("C_SetPIN", 0xA0)) == "token.pin_incorrect"

    before = faulty.calls("C_Login")
    assert await login(faulty) == "token.pin_blocked"
    assert faulty.calls("C_Login") == before
    assert pin_files(faulty) == {"pin": PIN}


@pytest.mark.parametrize("value", [Rv.USER_PIN_NOT_INITIALIZED, LunaRv.USER_LOCKED_OUT])
async def test_another_word_about_the_pin_out_of_c_set_pin_stops_all_attempts(faulty: FaultyToken, value: int) -> None:
    await change(faulty, returns("C_SetPIN", value))

    history = PinJournal(str(faulty.hsm.journal)).history(await serial_of(faulty))
    assert history.blocked
    before = faulty.calls("C_Login")
    assert await login(faulty) == "token.pin_blocked"
    assert faulty.calls("C_Login") == before
    assert pin_files(faulty) == {"pin": PIN, "pin.new": NEW}, "nobody knows which of them the token has"


def worker_pid(token: WorkerToken) -> int:
    assert token._worker is not None
    return token._worker.pid


async def test_a_key_that_asks_for_the_pin_at_each_signature_is_given_the_new_one(faulty: FaultyToken) -> None:
    token = open_token(faulty.config())
    await token.sign(key_id=ALWAYS_ID, mechanism=Mechanism.RSA_SHA256, digest=bytes(32))
    await token.change_pin(new_pin())

    for _ in range(2):
        assert await token.sign(key_id=ALWAYS_ID, mechanism=Mechanism.RSA_SHA256, digest=bytes(32))
    await token.close()
    history = PinJournal(str(faulty.hsm.journal)).history(await serial_of(faulty))
    assert (history.unknown, history.blocked, history.changing) == (0, False, "")


async def test_a_worker_that_is_killed_inside_c_set_pin(faulty: FaultyToken) -> None:
    faulty.break_with(hangs_after("C_SetPIN"))
    token = open_token(faulty.config())
    changing = asyncio.ensure_future(token.change_pin(new_pin()))
    await faulty.until_called("C_SetPIN-done")
    assert pin_files(faulty)["pin.new"] == NEW, "it is on disk before the token hears of it"
    os.kill(worker_pid(token), signal.SIGKILL)

    with pytest.raises(TokenError) as caught:
        await changing
    faulty.heal()

    assert caught.value.code == "token.crashed"
    with pytest.raises(TokenError):
        await token.keys()
    clear(faulty, await serial_of(faulty))
    assert await token.keys()
    await token.close()
    assert pin_files(faulty) == {"pin": NEW}


async def test_a_pin_file_that_cannot_be_rewritten_is_noticed_before_the_token_hears_of_it(faulty: FaultyToken) -> None:
    blocked = faulty.hsm.directory / "pin.new"
    blocked.mkdir()
    (blocked / "full").touch()

    assert await change(faulty) == "token.pin_file"
    assert faulty.calls("C_SetPIN") == 0
