# SPDX-License-Identifier: Apache-2.0
"""The recovery ladder over a real module that fails in every way: what is tried, in which order, and what never is."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from privyseal.agent.ladder import BOUNDS, OF_HOST, OF_TOKEN, Rung, Tally, is_about_pin, is_unknown
from privyseal.agent.pool import TokenPool
from privyseal.errors import TokenError, UsbError
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.tokens.ckr import LunaRv, Rv
from privyseal.tokens.remedies import Remedy, remedy_for
from recovering import DIGEST, FREE, Lab, open_lab
from softhsm import EC_ID, LABEL, PIN, fresh_softhsm

CODES = [*(rv for rv in Rv if rv != Rv.OK), *LunaRv, 0x8000_0001, 0x7777]


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


@pytest.fixture
async def lab(faulty: FaultyToken) -> AsyncIterator[Lab]:
    opened = open_lab(faulty)
    await opened.token.keys()
    yield opened
    faulty.heal()
    await opened.token.close()


@pytest.mark.parametrize("rv", [0xB0, 0xB3, 0x101, 0x30])
async def test_what_was_lost_before_c_sign_is_got_again(lab: Lab, rv: int) -> None:
    lab.faulty.break_with(f"C_SignInit once {rv:x}")

    assert await lab.sign()

    assert lab.taken == ["session"]
    assert lab.faulty.calls("C_Sign") == 1


async def test_what_fails_always_is_told_at_the_top(lab: Lab) -> None:
    lab.faulty.break_with("C_SignInit rv 30")

    error = await lab.refused()

    assert (error.ckr, error.begun) == (0x30, False)
    assert lab.taken == ["session", "module", "worker"]
    lab.faulty.heal()
    assert await lab.sign(), "and it is well again once the module is"


async def test_every_code_before_c_sign(lab: Lab) -> None:
    """Given once, a code either does no harm or is told, and what comes after it works."""
    for rv in CODES:
        lab.faulty.break_with(f"C_SignInit once {int(rv):x}")
        lab.steps.clear()
        signs, remedy = lab.faulty.calls("C_Sign"), remedy_for(rv, in_sign=False)
        if remedy in (Remedy.GIVE_UP, Remedy.NEVER):
            assert not (await lab.refused()).begun
            assert lab.taken == []
            assert lab.faulty.calls("C_Sign") == signs
        else:
            assert await lab.sign()
            assert lab.taken == ["worker" if remedy is Remedy.NEW_WORKER else "session"]
        if remedy is Remedy.NEVER:
            await check_blocked(lab)
        assert await lab.sign(), hex(rv)


async def test_every_code_in_c_sign(lab: Lab) -> None:
    """It ends the operation there; what is done about it, is done before the next one."""
    for rv in CODES:
        lab.faulty.break_with(f"C_Sign once {int(rv):x}")
        lab.steps.clear()
        signs, remedy = lab.faulty.calls("C_Sign"), remedy_for(rv, in_sign=True)
        error = await lab.refused()
        assert (error.begun, error.ckr) == (True, int(rv))
        assert is_unknown(error) == (remedy not in (Remedy.GIVE_UP, Remedy.NEVER))
        assert lab.faulty.calls("C_Sign") == signs + 1
        assert lab.taken == []
        if remedy is Remedy.NEVER:
            await check_blocked(lab)
        assert await lab.sign(), hex(rv)
        assert lab.taken == {Remedy.NEW_WORKER: ["worker"], Remedy.GIVE_UP: [], Remedy.NEVER: []}.get(
            remedy, ["session"]
        )


async def check_blocked(lab: Lab) -> None:
    """The PIN is not presented again before a person acts, by this worker or another."""
    logins = lab.faulty.calls("C_Login")
    for _ in range(2):
        error = await lab.refused()
        assert error.code == "token.pin_blocked"
        assert is_about_pin(error)
        assert lab.token.pin_error is error
        await lab.token.recycle()
    assert lab.faulty.calls("C_Login") == logins
    await lab.unblock()


@pytest.mark.parametrize("rv", [0xA0, 0xA3, 0xA4, 0x102, 0x1B0, 0x80000007])
async def test_a_pin_that_was_refused_is_presented_once(faulty: FaultyToken, rv: int) -> None:
    faulty.break_with(f"C_Login rv {rv:x}")
    lab = open_lab(faulty)
    for _ in range(3):
        await lab.refused()

    assert faulty.calls("C_Login") == 1
    assert lab.taken == []
    await lab.token.close()


@pytest.mark.parametrize("function", ["C_OpenSession", "C_FindObjectsInit", "C_GetAttributeValue", "C_SignInit"])
async def test_a_word_about_the_pin_from_any_function_stops_logins(lab: Lab, function: str) -> None:
    await lab.token.recycle()
    lab.faulty.break_with(f"{function} once a4")

    assert (await lab.refused()).code == "token.pin_locked"

    await check_blocked(lab)


async def test_a_worker_presents_no_pin_to_a_token_that_stands_where_its_own_was(lab: Lab) -> None:
    hsm, logins = lab.faulty.hsm, lab.faulty.calls("C_Login")
    shutil.rmtree(hsm.directory / "tokens")
    (hsm.directory / "tokens").mkdir()
    hsm.run("softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN.decode(), "--so-pin", "87654321")
    await lab.token.step(Rung.MODULE, TokenError("token.reset", "so that the module looks again"))

    error = await lab.refused()

    assert error.code == "token.other_serial"
    assert lab.faulty.calls("C_Login") == logins


@pytest.mark.parametrize("action", ["hang", "abort"])
async def test_a_worker_that_is_gone_before_c_sign_is_made_up_for(lab: Lab, action: str) -> None:
    starts = lab.token.starts
    lab.faulty.break_with(f"C_SignInit {action}")
    signing = asyncio.create_task(lab.sign())
    calls = lab.faulty.calls("C_SignInit")
    while lab.faulty.calls("C_SignInit") == calls:  # noqa: ASYNC110 - another process writes the log
        await asyncio.sleep(0.01)
    lab.faulty.heal()

    assert await signing

    assert lab.taken == ["worker"]
    assert lab.token.starts == starts + 1
    assert lab.faulty.calls("C_Sign") == 1


async def test_a_hang_in_c_sign_costs_its_deadline_and_the_next_one_works(lab: Lab) -> None:
    lab.faulty.break_with("C_Sign hang")
    error = await lab.refused()
    assert (error.code, is_unknown(error)) == ("token.timeout", True)
    lab.faulty.heal()

    assert await lab.sign()

    assert lab.steps == [("worker", "token.timeout", "done")]
    assert lab.faulty.calls("C_Sign") == 2


@pytest.fixture
def told(lab: Lab) -> list[str]:
    """What was said of the token's headway, each time that it changed."""
    said: list[str] = []
    lab.token.trouble_changed = lambda: said.append(lab.token.trouble)
    return said


async def test_a_late_signature_is_told_of_before_its_deadline(faulty: FaultyToken) -> None:
    lab = open_lab(faulty, sign_seconds=20.0, patience_seconds=0.05)
    said: list[str] = []
    lab.token.trouble_changed = lambda: said.append(lab.token.trouble)
    try:
        await lab.token.keys()
        faulty.break_with("C_Sign delay 400")

        assert await lab.sign()

        assert said == ["no signature in 0.05 s", ""]
    finally:
        await lab.token.close()


async def test_a_failure_in_c_sign_is_trouble_until_something_works(lab: Lab, told: list[str]) -> None:
    lab.faulty.break_with("C_Sign hang")
    await lab.refused()
    assert len(told) == 1
    assert "[token.timeout]" in lab.token.trouble
    lab.faulty.heal()

    await lab.token.info()

    assert told[1:] == [""]


async def test_a_new_session_is_no_trouble_and_a_new_worker_is(lab: Lab, told: list[str]) -> None:
    lab.faulty.break_with("C_SignInit once b3")
    assert await lab.sign()
    assert told == []

    lab.faulty.break_with("C_SignInit once 5")
    assert await lab.sign()
    assert [bool(one) for one in told] == [True, False]


async def test_the_steps_of_the_host_come_in_their_order(faulty: FaultyToken) -> None:
    done: list[str] = []

    def step(name: str) -> Callable[[], Awaitable[None]]:
        async def take() -> None:
            done.append(name)
            if name == "usb":
                raise UsbError("usb.reset", "the device does not answer")
            if name == "pcscd":
                faulty.heal()

        return take

    lab = open_lab(faulty, USB_RESET=step("usb"), PORT_POWER=step("power"), PCSCD=step("pcscd"), REBOOT=step("reboot"))
    await lab.token.keys()
    faulty.break_with("C_SignInit rv 30")

    assert await lab.sign()

    assert done == ["usb", "power", "pcscd"], "a step that fails is followed by the next one, and then no more"
    assert [(step, outcome) for step, _, outcome in lab.steps] == [
        ("session", "done"),
        ("module", "done"),
        ("worker", "done"),
        ("usb-reset", "failed"),
        ("port-power", "done"),
        ("pcscd", "done"),
    ]
    await lab.token.close()


async def test_a_look_that_rests_takes_no_steps(lab: Lab) -> None:
    lab.faulty.break_with("C_GetSlotList empty")
    await lab.token.recycle()
    with lab.token.resting():
        for call in (lab.token.info, lab.token.keys):
            with pytest.raises(TokenError) as caught:
                await call()

            assert caught.value.code == "token.not_found"
    assert lab.taken == []
    with pytest.raises(TokenError):
        await lab.token.info()
    assert lab.taken, "and then it is recovered again"


async def test_what_it_has_done_is_counted(lab: Lab) -> None:
    for _ in range(3):
        await lab.sign()
    lab.faulty.break_with("C_Sign once 30")
    await lab.refused()
    await lab.sign()
    signing = lab.token.signing

    assert (signing.signatures, signing.failures) == (4, 1)
    assert sum(signing.counts) == 4
    assert signing.steps[Rung.SESSION] == 1
    assert signing.seconds > 0


async def test_several_workers_sign_at_the_same_time(faulty: FaultyToken) -> None:
    members = [open_lab(faulty, call_seconds=20.0, sign_seconds=3.0) for _ in range(2)]
    for member in members:
        await member.token.keys()  # one after the other: two at once would be two logins at once for the journal
    pool = TokenPool(tuple(member.token for member in members))
    spki = next(key.spki for key in await pool.keys() if key.key_id == EC_ID)
    faulty.break_with("C_Sign hang")
    both = [
        asyncio.create_task(pool.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=DIGEST)) for _ in range(2)
    ]
    while faulty.calls("C_Sign") < 2:  # noqa: ASYNC110 - another process writes the log
        await asyncio.sleep(0.01)
    faulty.heal()
    failed = await asyncio.gather(*both, return_exceptions=True)

    assert all(isinstance(one, TokenError) and one.begun for one in failed), "both were in C_Sign at the same time"
    signatures = await asyncio.gather(
        *(pool.sign(key_id=EC_ID, mechanism=Mechanism.ECDSA_SHA256, digest=DIGEST) for _ in range(8))
    )
    for signature in signatures:
        verify_digest(spki, Mechanism.ECDSA_SHA256, DIGEST, signature)
    assert pool.signing.signatures == 8
    assert pool.starts == 4
    await pool.close()


async def test_workers_and_tokens_together_take_the_hosts_steps_no_more_often_than_one(faulty: FaultyToken) -> None:
    done: list[str] = []

    async def reset() -> None:
        done.append("usb")

    async def restart() -> None:
        done.append("pcscd")

    host = Tally({**FREE, Rung.USB_RESET: BOUNDS[Rung.USB_RESET], Rung.PCSCD: BOUNDS[Rung.PCSCD]})
    tokens = [host.sharing(OF_HOST) for _ in range(2)]
    workers = [
        open_lab(faulty, token.sharing(OF_HOST | OF_TOKEN), USB_RESET=reset, PCSCD=restart)
        for token in tokens
        for _ in range(2)
    ]
    faulty.break_with("C_GetSlotList empty")
    for worker in (*workers, *workers):
        await worker.refused()

    assert done.count("usb") == 2 * BOUNDS[Rung.USB_RESET].count, "two tokens have two devices"
    assert done.count("pcscd") == BOUNDS[Rung.PCSCD].count, "and one host"
    for worker in workers:
        await worker.token.close()


async def test_a_pin_that_a_person_looked_into_is_well_for_all_workers(faulty: FaultyToken) -> None:
    members = [open_lab(faulty, call_seconds=20.0, sign_seconds=3.0) for _ in range(2)]
    pool = TokenPool(tuple(member.token for member in members))
    await pool.keys()
    faulty.hsm.set_pin_file(b"000000")
    assert (await members[1].refused()).code == "token.pin_incorrect"
    assert members[1].token.pin_error is not None
    faulty.hsm.set_pin_file(PIN)
    await members[1].unblock()
    await pool.keys()

    assert pool.pin_error is None
    assert faulty.calls("C_Login") == 2
    assert await members[1].sign()
    await pool.close()


async def test_no_pin_is_in_what_is_told(faulty: FaultyToken) -> None:
    faulty.break_with("C_Login rv a0")
    lab = open_lab(faulty)

    assert PIN.decode() not in str(await lab.refused())
    await lab.token.close()
