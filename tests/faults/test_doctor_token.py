# SPDX-License-Identifier: Apache-2.0
"""`doctor` on a token of SoftHSM2: its module, its flags, its PIN; it logs in only when told to, and once."""

import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from diagnoses import fails, row, verdicts
from lab.fault_shim import FaultyToken, around
from privyseal.agent.diagnosis_pcsc import PcscPlaces
from privyseal.agent.diagnosis_token import look_at_token
from privyseal.ports.diagnosis import Row, Verdict
from privyseal.ports.token import PinState
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.pin_journal import PinJournal
from softhsm import PIN, fresh_softhsm

COUNT_LOW, FINAL_TRY, LOCKED = "10000", "20000", "40000"  # CKF_USER_PIN_*
AARCH64, X86_64, MACHINE_OFFSET = 183, 62, 18


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


async def looked_at(config: TokenConfig, *, login: bool = False) -> tuple[Row, ...]:
    found = await look_at_token(config, login=login, pcsc=PcscPlaces(socket=Path("/nonexistent/pcscd.comm")))
    may_show_keys = "token lab: login" in [one.subject for one in found.rows if one.verdict is Verdict.PASS]
    assert (found.keys is not None) == may_show_keys
    return found.rows


async def test_a_sound_token_is_not_logged_in_to(faulty: FaultyToken) -> None:
    rows = await looked_at(faulty.config())

    assert verdicts(rows) == {}
    assert [one.subject for one in rows] == [
        "token lab: module", "token lab: PIN file", "token lab", "token lab: PIN", "token lab: PIN journal",
    ]  # fmt: skip
    assert faulty.calls("C_GetTokenInfo") > 0
    assert faulty.calls("C_Login") == 0
    assert not faulty.hsm.journal.exists()


async def test_a_counter_that_cannot_be_read_is_told(faulty: FaultyToken) -> None:
    config = faulty.config()
    without_pcscd = {**config.environment, "PCSCLITE_CSOCK_NAME": "/nonexistent/pcscd.comm"}

    rows = await looked_at(replace(config, counter="openpgp", environment=without_pcscd))

    fails(row(rows, "token lab: counter"), "token.pcscd", "token")


async def test_a_login_that_was_asked_for_is_one(faulty: FaultyToken) -> None:
    rows = await looked_at(faulty.config(), login=True)

    assert verdicts(rows) == {}
    assert "3 signing keys" in row(rows, "token lab: login").found
    assert faulty.calls("C_Login") == 1


async def test_a_wrong_pin_is_presented_once_and_then_no_more(faulty: FaultyToken) -> None:
    faulty.hsm.set_pin_file(b"wrong-pin")

    first = await looked_at(faulty.config(), login=True)
    again = await looked_at(faulty.config(), login=True)

    fails(row(first, "token lab: login"), "token.pin_incorrect", "token")
    fails(row(again, "token lab: PIN journal"), "token.pin_blocked", "token")
    assert f"token unlock lab --dir {faulty.hsm.directory}" in row(again, "token lab: PIN journal").next_step
    assert row(again, "token lab: login").verdict is Verdict.SKIP
    assert faulty.calls("C_Login") == 1


async def test_an_attempt_of_unknown_outcome_is_told(faulty: FaultyToken) -> None:
    token, pin = open_token(faulty.config()), PinBuffer()
    serial = (await token.info()).serial
    await token.close()
    pin.fill(PIN)
    with PinJournal(str(faulty.hsm.journal)).attempt(serial=serial, pin=pin, pin_state=PinState.OK):
        pass  # as if the machine had lost its power during the login

    assert row(await looked_at(faulty.config()), "token lab: PIN journal").verdict is Verdict.WARN


async def test_the_modules_file_is_missing(faulty: FaultyToken, tmp_path: Path) -> None:
    rows = await looked_at(faulty.hsm.config(module=str(tmp_path / "none.so")))

    fails(row(rows, "token lab: module"), "token.module", "token")
    assert row(rows, "token lab").verdict is Verdict.SKIP


def for_another_processor(module: str) -> bytes:
    content = bytearray(Path(module).read_bytes())
    (here,) = struct.unpack_from("<H", content, MACHINE_OFFSET)
    struct.pack_into("<H", content, MACHINE_OFFSET, X86_64 if here == AARCH64 else AARCH64)
    return bytes(content)


async def test_the_module_is_for_another_processor(faulty: FaultyToken, tmp_path: Path) -> None:
    (tmp_path / "other.so").write_bytes(for_another_processor(faulty.hsm.module))

    rows = await looked_at(faulty.hsm.config(module=str(tmp_path / "other.so")))

    fails(row(rows, "token lab: module"), "token.module_architecture", "token")
    assert "this Python for" in row(rows, "token lab: module").found


async def test_the_module_is_no_library(faulty: FaultyToken) -> None:
    rows = await looked_at(faulty.hsm.config(module=str(faulty.hsm.pin_file)))

    fails(row(rows, "token lab: module"), "token.module", "token")


async def test_the_module_crashes_while_it_is_loaded(faulty: FaultyToken, tmp_path: Path) -> None:
    shutil.copy(faulty.hsm.module, tmp_path / "half.so")
    os.truncate(tmp_path / "half.so", 4096)

    rows = await looked_at(faulty.hsm.config(module=str(tmp_path / "half.so")))

    assert row(rows, "token lab: module").verdict is Verdict.PASS
    fails(row(rows, "token lab"), "token.crashed", "token")


async def test_the_module_hangs(faulty: FaultyToken) -> None:
    faulty.break_with("C_GetTokenInfo hang")

    fails(row(await looked_at(faulty.config(call_seconds=1.0)), "token lab"), "token.timeout", "token")


async def test_the_token_is_absent(faulty: FaultyToken) -> None:
    faulty.break_with("C_GetSlotList empty")

    fails(row(await looked_at(faulty.config()), "token lab"), "token.not_found", "token")


@pytest.mark.parametrize(
    ("flags", "verdict"), [(COUNT_LOW, Verdict.WARN), (FINAL_TRY, Verdict.WARN), (LOCKED, Verdict.FAIL)]
)
async def test_the_tokens_flags(faulty: FaultyToken, flags: str, verdict: Verdict) -> None:
    faulty.break_with(f"C_GetTokenInfo flags {flags}")

    assert row(await looked_at(faulty.config()), "token lab: PIN").verdict is verdict


async def test_the_pin_file_can_be_read_by_others(faulty: FaultyToken) -> None:
    faulty.hsm.pin_file.chmod(0o640)

    fails(row(await looked_at(faulty.config()), "token lab: PIN file"), "token.pin_file", "token")


async def test_a_credential_of_the_service_is_not_doctors(faulty: FaultyToken) -> None:
    rows = await looked_at(faulty.config(pin_file="/run/credentials/privyseal-agent.service/pin"))

    assert row(rows, "token lab: PIN file").verdict is Verdict.SKIP


async def test_without_a_pin_file_somebody_must_hand_it_in(faulty: FaultyToken) -> None:
    assert row(await looked_at(faulty.config(pin_file="")), "token lab: PIN file").verdict is Verdict.SKIP


def opensc() -> str:
    return str(next(path for path in Path("/usr").glob("lib*/**/opensc-pkcs11.so")))


async def test_a_module_of_smart_cards_needs_pcscd(faulty: FaultyToken) -> None:
    rows = await looked_at(faulty.hsm.config(module=opensc()))

    fails(row(rows, "pcscd"), "token.pcscd", "token")
    assert "pcscd" not in [one.subject for one in await looked_at(faulty.config())]
