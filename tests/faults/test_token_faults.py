# SPDX-License-Identifier: Apache-2.0
"""A vendor's module that hangs, crashes or fails: what the caller is told, and that the next call works."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from privyseal.errors import TokenError
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.ports.token import PinState
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin_journal import PinJournal
from privyseal.tokens.supervisor import WorkerToken
from softhsm import ALWAYS_ID, EC_ID, RSA_ID, fresh_softhsm

DIGEST = bytes(range(32))


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


@pytest.fixture
async def token(faulty: FaultyToken) -> AsyncIterator[WorkerToken]:
    opened = open_token(faulty.config(call_seconds=20.0, sign_seconds=0.5))
    yield opened
    faulty.heal()
    await opened.close()


async def sign(token: WorkerToken, key_id: bytes = EC_ID) -> bytes:
    mechanism = Mechanism.ECDSA_SHA256 if key_id == EC_ID else Mechanism.RSA_SHA256
    return await token.sign(key_id=key_id, mechanism=mechanism, digest=DIGEST)


async def refusal(token: WorkerToken, key_id: bytes = EC_ID) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await sign(token, key_id)
    return caught.value


async def serial_of(token: WorkerToken) -> str:
    return (await token.info()).serial


async def end_session(faulty: FaultyToken, token: WorkerToken) -> None:
    """Have the next call open a session of its own, in the same worker."""
    faulty.break_with("C_SignInit rv 30")
    await refusal(token)
    faulty.heal()


def worker_pid(token: WorkerToken) -> int:
    assert token._worker is not None
    return token._worker.pid


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_hang_in_c_sign_ends_at_the_deadline_and_may_have_signed(
    faulty: FaultyToken, token: WorkerToken
) -> None:
    await token.keys()
    hung = worker_pid(token)
    faulty.break_with("C_Sign hang")
    started_s = time.monotonic()

    error = await refusal(token)

    assert (error.code, error.function, error.begun) == ("token.timeout", "C_Sign", True)
    assert time.monotonic() - started_s < 5
    assert has_ended(hung)
    faulty.heal()
    assert await sign(token), "the next call has a new worker"
    assert worker_pid(token) != hung


async def test_a_crash_in_c_sign_is_told_apart_and_may_have_signed(faulty: FaultyToken, token: WorkerToken) -> None:
    await token.keys()
    faulty.break_with("C_Sign abort")

    error = await refusal(token)

    assert (error.code, error.function, error.begun) == ("token.crashed", "C_Sign", True)
    assert "SIGABRT" in error.message
    faulty.heal()
    assert await sign(token)


async def test_a_crash_before_c_sign_has_not_signed(faulty: FaultyToken, token: WorkerToken) -> None:
    faulty.break_with("C_SignInit abort")

    error = await refusal(token)

    assert (error.code, error.begun) == ("token.crashed", False)
    assert faulty.calls("C_Sign") == 0


async def test_a_hang_while_the_module_loads_ends_at_the_deadline(faulty: FaultyToken) -> None:
    faulty.break_with("C_Initialize hang")
    token = open_token(faulty.config(start_seconds=1.5))

    error = await refusal(token)
    await token.close()

    assert (error.code, error.begun) == ("token.timeout", False)


async def test_a_hang_in_c_login_leaves_its_outcome_unknown_and_blocks(faulty: FaultyToken) -> None:
    faulty.break_with("C_Login hang")
    codes = []
    for _ in range(3):
        token = open_token(faulty.config(call_seconds=1.5))
        codes.append((await refusal(token)).code)
        await token.close()

    assert codes == ["token.timeout", "token.pin_blocked", "token.pin_blocked"]
    assert faulty.calls("C_Login") == 1


async def test_a_pin_that_was_accepted_before_is_tried_once_more_after_an_unknown_outcome(
    faulty: FaultyToken,
) -> None:
    codes = []
    for orders in ((), ("C_Login hang",), ("C_Login hang",), ()):
        faulty.break_with(*orders)
        token = open_token(faulty.config(call_seconds=1.5))
        try:
            await token.keys()
            codes.append("accepted")
        except TokenError as error:
            codes.append(error.code)
        await token.close()

    assert codes == ["accepted", "token.timeout", "token.timeout", "token.pin_blocked"]
    assert faulty.calls("C_Login") == 3


async def test_an_unknown_outcome_with_a_low_count_blocks_even_an_accepted_pin(faulty: FaultyToken) -> None:
    token = open_token(faulty.config())
    await token.keys()
    await token.recycle()
    faulty.break_with("C_Login rv 30")
    assert (await refusal(token)).ckr == 0x30
    faulty.break_with("C_GetTokenInfo flags 10000")

    error = await refusal(token)
    await token.close()

    assert error.code == "token.pin_blocked"
    assert faulty.calls("C_Login") == 2


async def test_a_wrong_pin_reaches_the_module_once_over_five_restarts(faulty: FaultyToken) -> None:
    faulty.hsm.set_pin_file(b"000000")
    codes = []
    for _ in range(5):
        token = open_token(faulty.config())
        codes.append((await refusal(token)).code)
        await token.close()

    assert codes == ["token.pin_incorrect"] + ["token.pin_blocked"] * 4
    assert faulty.calls("C_Login") == 1


@pytest.mark.parametrize(
    ("flag", "state", "code"),
    [(0x40000, PinState.LOCKED, "token.pin_locked"), (0x20000, PinState.FINAL_TRY, "token.pin_blocked")],
)
async def test_flags_of_the_token_keep_the_pin_back(
    faulty: FaultyToken, token: WorkerToken, flag: int, state: PinState, code: str
) -> None:
    faulty.break_with(f"C_GetTokenInfo flags {flag:x}")

    assert (await token.info()).pin_state is state
    assert (await refusal(token)).code == code
    assert faulty.calls("C_Login") == 0


async def test_on_the_final_try_a_person_may_vouch_for_the_pin(faulty: FaultyToken, token: WorkerToken) -> None:
    faulty.break_with("C_GetTokenInfo flags 20000")
    PinJournal(str(faulty.hsm.journal)).clear(await serial_of(token))

    assert await sign(token)


@pytest.mark.parametrize("function", ["C_OpenSession", "C_SignInit", "C_Sign"])
async def test_return_values_become_codes_that_know_whether_c_sign_began(
    faulty: FaultyToken, token: WorkerToken, function: str
) -> None:
    codes = {
        0x30: "token.failed",
        0x32: "token.not_found",
        0x60: "token.key_not_found",
        0xE0: "token.not_found",
        0x1B7: "token.failed",
        0x80000001: "token.failed",
        0xCE534351: "token.failed",
    }
    for rv, code in codes.items():
        calls = faulty.calls(function)
        faulty.break_with(f"{function} rv {rv:x}")

        error = await refusal(token)

        assert (error.code, error.ckr) == (code, rv)
        assert function in error.message
        assert error.begun == (function == "C_Sign")
        assert faulty.calls(function) == calls + 1, "not tried again"
        faulty.heal()
        assert await sign(token), "the next call has a session that works"
        if function == "C_OpenSession":
            await end_session(faulty, token)


async def test_a_session_lost_in_c_sign_is_not_tried_again(faulty: FaultyToken, token: WorkerToken) -> None:
    faulty.break_with("C_Sign rv b3")

    error = await refusal(token)

    assert (error.code, error.begun) == ("token.session_lost", True)
    assert faulty.calls("C_Sign") == 1


async def test_a_module_that_crashes_in_c_finalize_loses_nothing(faulty: FaultyToken) -> None:
    faulty.break_with("C_Finalize segv")
    token = open_token(faulty.config())

    signature = await sign(token)
    spki = next(key.spki for key in await token.keys() if key.key_id == EC_ID)
    await token.close()

    verify_digest(spki, Mechanism.ECDSA_SHA256, DIGEST, signature)
    assert faulty.calls("C_Finalize") == 1


async def test_an_empty_slot_list_is_a_token_that_is_not_found(faulty: FaultyToken, token: WorkerToken) -> None:
    faulty.break_with("C_GetSlotList empty")

    with pytest.raises(TokenError) as caught:
        await token.info()

    assert caught.value.code == "token.not_found"
    assert faulty.calls("C_Initialize") == 2, "looked again after C_Finalize, as many modules need"
    faulty.heal()
    assert (await token.info()).label == "hub", "seen as soon as it is there"


async def test_both_conventions_for_the_length_of_a_signature_are_understood(
    faulty: FaultyToken, token: WorkerToken
) -> None:
    faulty.break_with("C_Sign small")

    assert len(await sign(token, RSA_ID)) == 384
    assert faulty.calls("C_SignInit") == 1
    assert faulty.calls("C_Sign") == 2


async def test_a_signature_of_the_wrong_length_is_refused(faulty: FaultyToken, token: WorkerToken) -> None:
    faulty.break_with("C_Sign short")

    error = await refusal(token)

    assert (error.code, error.begun) == ("token.failed", True)
    assert "63 bytes" in error.message


async def test_a_key_that_asks_for_the_pin_each_time_gets_the_accepted_one(
    faulty: FaultyToken, token: WorkerToken
) -> None:
    for _ in range(2):
        assert len(await sign(token, ALWAYS_ID)) == 384

    assert faulty.calls("C_Login") == 3, "one for the session, one for each signature"


async def test_hardware_is_what_the_slot_says_and_never_softhsm(faulty: FaultyToken) -> None:
    maker, slot = "C_GetTokenInfo maker Lab", "C_GetSlotInfo flags 4"
    found = {}
    for configured in (None, True, False):
        token = open_token(faulty.config(hardware=configured))
        for orders in ((), (slot,), (maker,), (maker, slot)):
            faulty.break_with(*orders)
            found[configured, orders] = (await token.info()).hardware
        await token.close()

    assert {case for case, hardware in found.items() if hardware} == {
        (None, (maker, slot)),
        (True, (maker,)),
        (True, (maker, slot)),
    }


async def test_workers_are_not_started_more_often_than_allowed(faulty: FaultyToken) -> None:
    faulty.break_with("C_SignInit abort")
    token = open_token(faulty.config(respawn_seconds=1.5))
    started_s = time.monotonic()

    for _ in range(2):
        assert (await refusal(token)).code == "token.crashed"
    elapsed_s = time.monotonic() - started_s
    await token.close()

    assert elapsed_s >= 1.5


async def test_a_cancelled_caller_does_not_end_the_call_that_others_wait_behind(
    faulty: FaultyToken, token: WorkerToken
) -> None:
    await token.keys()
    worker = worker_pid(token)
    first = asyncio.create_task(sign(token, RSA_ID))
    second = asyncio.create_task(sign(token, EC_ID))
    await asyncio.sleep(0)
    first.cancel()

    assert await second

    assert first.cancelled()
    assert worker_pid(token) == worker
    assert faulty.calls("C_Sign") == 2


async def test_close_does_not_wait_for_a_module_that_hangs_while_it_loads(faulty: FaultyToken) -> None:
    faulty.break_with("C_Initialize hang")
    token = open_token(faulty.config(close_seconds=0.2))
    hanging = asyncio.create_task(refusal(token))
    await faulty.until_called("C_Initialize")
    pid = worker_pid(token)

    await token.close()

    assert (await hanging).code == "token.crashed"
    assert has_ended(pid)


async def test_close_does_not_wait_for_a_hanging_call(faulty: FaultyToken) -> None:
    token = open_token(faulty.config(close_seconds=0.5))
    await token.keys()
    pid = worker_pid(token)
    faulty.break_with("C_Sign hang")
    hanging = asyncio.create_task(refusal(token))
    await faulty.until_called("C_Sign")

    await token.close()

    assert (await hanging).begun is True
    assert has_ended(pid)
