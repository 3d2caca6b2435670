# SPDX-License-Identifier: Apache-2.0
"""A module that hangs, crashes or refuses while a token is looked for, given a key, or given certificates."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from privyseal.errors import TokenError
from privyseal.tokens.discovery import LookedAt, look_at
from privyseal.tokens.factory import open_token
from privyseal.tokens.places import FoundModule
from privyseal.tokens.supervisor import WorkerToken
from privyseal.tokens.testca import make_test_ca
from softhsm import ALWAYS_ID, LABEL, RSA_ID, fresh_softhsm

NEW_ID = b"\x42"


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


@pytest.fixture
async def token(faulty: FaultyToken) -> AsyncIterator[WorkerToken]:
    opened = open_token(faulty.config(call_seconds=20.0, generate_seconds=0.5))
    yield opened
    faulty.heal()
    await opened.close()


async def refused_key(token: WorkerToken) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await token.generate_key(kind="p256", key_id=NEW_ID, label="new key")
    return caught.value


async def has_new_key(token: WorkerToken) -> bool:
    return NEW_ID in {key.key_id for key in await token.keys()}


async def look(faulty: FaultyToken, seconds: float = 20.0) -> LookedAt:
    config = faulty.config()
    module = FoundModule(path=Path(config.module), product="")
    return await look_at(module, environment=config.environment, seconds=seconds)


def problem(looked: LookedAt) -> TokenError:
    assert looked.contents is None
    assert looked.problem is not None
    return looked.problem


async def test_a_hang_in_key_generation_ends_at_its_own_deadline(faulty: FaultyToken, token: WorkerToken) -> None:
    await token.keys()
    faulty.break_with("C_GenerateKeyPair hang")
    started_s = time.monotonic()

    error = await refused_key(token)

    assert (error.code, error.function, error.begun) == ("token.timeout", "C_GenerateKeyPair", False)
    assert time.monotonic() - started_s < 10
    faulty.heal()
    assert not await has_new_key(token), "the next call has a new worker"
    assert (await token.generate_key(kind="p256", key_id=NEW_ID, label="new key")).key_id == NEW_ID


async def test_a_crash_after_key_generation_leaves_the_key(faulty: FaultyToken, token: WorkerToken) -> None:
    faulty.break_with("C_GenerateKeyPair segv")

    error = await refused_key(token)

    assert (error.code, error.function) == ("token.crashed", "C_GenerateKeyPair")
    faulty.heal()
    assert await has_new_key(token)
    assert (await refused_key(token)).code == "token.key_exists"


@pytest.mark.parametrize("rv", ["b3", "101", "31", "d1", "54"])
async def test_a_refused_key_generation_is_not_repeated(faulty: FaultyToken, token: WorkerToken, rv: str) -> None:
    faulty.break_with(f"C_GenerateKeyPair rv {rv}")

    error = await refused_key(token)

    assert (error.function, error.ckr) == ("C_GenerateKeyPair", int(rv, 16))
    assert faulty.calls("C_GenerateKeyPair") == 1
    faulty.heal()
    assert not await has_new_key(token)


async def test_after_a_lost_session_a_person_asks_for_the_key_again(faulty: FaultyToken, token: WorkerToken) -> None:
    await token.keys()
    faulty.break_with("C_OpenSession once b3")
    with pytest.raises(TokenError) as caught:
        await token.generate_key(kind="p256", key_id=NEW_ID, label="new key")
    assert caught.value.code == "token.session_lost"

    made = await token.generate_key(kind="p256", key_id=NEW_ID, label="new key")

    assert made.key_id == NEW_ID
    assert faulty.calls("C_GenerateKeyPair") == 1


async def test_a_token_that_takes_no_certificate_says_so(faulty: FaultyToken, token: WorkerToken) -> None:
    key = next(key for key in await token.keys() if key.key_id == ALWAYS_ID)
    now = datetime.now(UTC)
    ca = make_test_ca(not_before=now, not_after=now + timedelta(days=2))
    chain = ca.issue_code_signing(spki=key.spki, common_name="Lab", not_before=now, not_after=now + timedelta(days=1))
    faulty.break_with("C_CreateObject rv 31")

    with pytest.raises(TokenError) as caught:
        await token.store_certificates(key_id=ALWAYS_ID, chain=chain)

    assert (caught.value.function, caught.value.ckr) == ("C_CreateObject", 0x31)
    assert faulty.calls("C_CreateObject") == 1
    faulty.heal()
    assert next(key for key in await token.keys() if key.key_id == ALWAYS_ID).certificates == ()


async def test_a_scan_shows_what_is_public_and_logs_in_to_nothing(faulty: FaultyToken) -> None:
    looked = await look(faulty)

    assert looked.problem is None
    assert looked.contents is not None
    seen = next(token for token in looked.contents.tokens if token.initialized)
    assert (seen.label, seen.hardware, seen.login_required) == (LABEL, False, True)
    assert {RSA_ID, b"\xff"} <= {one.key_id for one in seen.certificates}
    assert looked.contents.slots == 2
    assert faulty.calls("C_Login") == 0
    assert not faulty.hsm.journal.exists()


@pytest.mark.parametrize("function", ["C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession"])
async def test_a_module_that_hangs_is_one_entry(faulty: FaultyToken, function: str) -> None:
    faulty.break_with(f"{function} hang")
    started_s = time.monotonic()

    assert problem(await look(faulty, seconds=1.0)).code == "token.timeout"
    assert time.monotonic() - started_s < 8


async def test_a_module_that_crashes_is_one_entry(faulty: FaultyToken) -> None:
    faulty.break_with("C_GetTokenInfo abort")

    error = problem(await look(faulty))

    assert error.code == "token.crashed"
    assert "SIGABRT" in error.message


async def test_a_token_that_goes_away_meanwhile_does_not_hide_the_module(faulty: FaultyToken) -> None:
    faulty.break_with("C_GetTokenInfo rv e0")
    gone = await look(faulty)
    faulty.break_with("C_OpenSession rv 30")
    mute = await look(faulty)

    assert gone.contents is not None
    assert gone.contents.tokens == ()
    assert mute.contents is not None
    assert any("CKR_DEVICE_ERROR" in token.problem for token in mute.contents.tokens)


async def test_an_initialisation_that_fails_is_one_entry(faulty: FaultyToken) -> None:
    faulty.break_with("C_Initialize rv 5")

    assert problem(await look(faulty)).ckr == 5


async def test_a_library_for_another_processor_is_not_loaded(faulty: FaultyToken, tmp_path: Path) -> None:
    library = bytearray(faulty.library.read_bytes())
    library[18:20] = (243).to_bytes(2, "little")  # e_machine: RISC-V
    foreign = tmp_path / "foreign.so"
    foreign.write_bytes(library)

    looked = await look_at(FoundModule(path=foreign, product=""))

    assert problem(looked).code == "token.module_architecture"
    assert "riscv64" in problem(looked).message
    assert looked.machines == ("riscv64",)


async def test_files_that_are_no_module_are_named(faulty: FaultyToken, tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("INPUT(libc.so.6)")
    torn = tmp_path / "torn.so"
    torn.write_bytes(faulty.library.read_bytes()[:4096])
    (tmp_path / "folder.so").mkdir()

    names = ("text.so", "torn.so", "folder.so", "gone.so")
    codes = [problem(await look_at(FoundModule(path=tmp_path / name, product=""))).code for name in names]

    # What the loader does with half a library is its own affair: some versions end the process (SIGBUS).
    assert codes.pop(1) in ("token.module", "token.crashed")
    assert codes == ["token.module", "token.module", "token.module"]


async def test_a_module_that_once_fails_to_initialize_again_is_initialized_by_the_next_call(
    faulty: FaultyToken, token: WorkerToken
) -> None:
    """A search that finds nothing is repeated after C_Finalize and C_Initialize: the second of this worker."""
    faulty.break_with("C_GetSlotList empty", "C_Initialize rv 5 @2")
    with pytest.raises(TokenError) as caught:
        await token.info()
    assert (caught.value.code, caught.value.function) == ("token.failed", "C_Initialize")

    faulty.heal()

    assert (await token.info()).label == LABEL
