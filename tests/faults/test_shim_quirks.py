# SPDX-License-Identifier: Apache-2.0
"""The shim's quirks, by bare calls of the module: each is there while it is ordered, and gone when it is not."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from lab.module_probe import ModuleProbe, probing
from lab.shim_orders import (
    REMOVED,
    at,
    busy_after_close,
    crashes_after,
    empty_after_open,
    first,
    hangs,
    pin_counter,
    returns,
    session_cap,
)
from privyseal.pki.mechanism import Mechanism, verify_digest
from privyseal.tokens.cryptoki_types import TokenFlags
from privyseal.tokens.token_objects import ecdsa_sig_value
from softhsm import EC_ID, PIN, fresh_softhsm

OK = 0x0
FUNCTION_FAILED = 0x6
DEVICE_ERROR = 0x30
DEVICE_REMOVED = 0x32
PIN_INCORRECT, PIN_LOCKED = 0xA0, 0xA4
SESSION_COUNT, SESSION_HANDLE_INVALID = 0xB1, 0xB3
TOKEN_NOT_PRESENT = 0xE0
SIGSEGV = 11
SLOT_HAS_TOKEN = 0x1
QUIRK_MS = 150


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


@pytest.fixture
def probe(faulty: FaultyToken) -> Iterator[ModuleProbe]:
    with probing(faulty) as one:
        yield one


def until_ms(is_over: Callable[[], bool]) -> float:
    """How long it took until something was so."""
    started_s = time.monotonic()
    while not is_over():
        assert time.monotonic() - started_s < 5, "it does not end"
    return (time.monotonic() - started_s) * 1000


def test_slots_are_empty_for_a_while_after_c_initialize(faulty: FaultyToken, probe: ModuleProbe) -> None:
    faulty.break_with(empty_after_open(QUIRK_MS))
    started_s = time.monotonic()
    probe.value("initialize")
    assert probe.value("slots") == probe.value("all_slots") == []

    until_ms(lambda: probe.value("slots") != [])

    assert time.monotonic() - started_s >= QUIRK_MS / 1000
    probe.value("finalize")
    probe.value("initialize")
    assert probe.value("slots") == [], "another C_Initialize, another while"


def test_slots_are_empty_for_a_while_after_a_session_was_closed(faulty: FaultyToken, probe: ModuleProbe) -> None:
    probe.value("initialize")
    session = probe.open()
    faulty.break_with(empty_after_open(QUIRK_MS))
    until_ms(lambda: probe.value("slots") != [])
    started_s = time.monotonic()
    probe.value("close_session", session)
    assert probe.value("slots") == []

    until_ms(lambda: probe.value("slots") != [])

    assert time.monotonic() - started_s >= QUIRK_MS / 1000


@pytest.mark.parametrize("rv", [DEVICE_ERROR, FUNCTION_FAILED])
def test_the_token_is_busy_for_a_while_after_a_session_was_closed(
    faulty: FaultyToken, probe: ModuleProbe, rv: int
) -> None:
    session, key = probe.ready()
    slot = probe.value("slots")[0]
    second = probe.open()
    faulty.break_with(busy_after_close(QUIRK_MS, rv))
    assert probe.sign(session, key).rv == OK, "nothing was closed yet"
    started_s = time.monotonic()
    probe.value("close_session", second)

    refused = probe.sign(session, key)
    assert (refused.function, refused.rv) == ("C_SignInit", rv)
    assert probe.rv("open_session", slot) == rv
    until_ms(lambda: probe.rv("open_session", slot) == OK)

    assert time.monotonic() - started_s >= QUIRK_MS / 1000
    assert probe.sign(session, key).rv == OK


def test_the_token_is_busy_for_the_next_process_too(faulty: FaultyToken, probe: ModuleProbe) -> None:
    faulty.break_with(busy_after_close(60_000))
    probe.value("initialize")
    probe.value("close_session", probe.open())

    with probing(faulty) as other:
        other.value("initialize")
        assert other.rv("open_session", other.value("slots")[0]) == DEVICE_ERROR
        faulty.heal()
        assert other.open()


def test_a_second_session_is_one_too_many(faulty: FaultyToken, probe: ModuleProbe) -> None:
    faulty.break_with(session_cap(1))
    session, key = probe.ready()
    slot = probe.value("slots")[0]

    assert probe.rv("open_session", slot) == SESSION_COUNT
    assert probe.sign(session, key).rv == OK, "the first one works on"
    probe.value("close_session", session)
    assert probe.open()
    assert probe.rv("open_session", slot) == SESSION_COUNT
    probe.value("finalize")
    probe.value("initialize")
    assert probe.open(), "C_Finalize ended them"


def pin_flags(probe: ModuleProbe) -> int:
    flags = int(probe.value("token", probe.value("slots")[0])["flags"])
    return flags & (TokenFlags.USER_PIN_COUNT_LOW | TokenFlags.USER_PIN_FINAL_TRY | TokenFlags.USER_PIN_LOCKED)


def test_wrong_pins_are_counted_over_processes_until_the_pin_is_locked(faulty: FaultyToken) -> None:
    faulty.break_with(pin_counter(3))
    low, last, locked = (
        TokenFlags.USER_PIN_COUNT_LOW,
        TokenFlags.USER_PIN_COUNT_LOW | TokenFlags.USER_PIN_FINAL_TRY,
        TokenFlags.USER_PIN_COUNT_LOW | TokenFlags.USER_PIN_LOCKED,
    )
    found = []
    for pin in ("000000", "000000", PIN.decode(), "000000", "000000", "000000", PIN.decode()):
        with probing(faulty) as probe:
            probe.value("initialize")
            found.append((probe.rv("login", probe.open(), pin), pin_flags(probe)))

    assert found == [
        (PIN_INCORRECT, low),
        (PIN_INCORRECT, last),
        (OK, 0),
        (PIN_INCORRECT, low),
        (PIN_INCORRECT, last),
        (PIN_INCORRECT, locked),
        (PIN_LOCKED, locked),
    ]


def test_a_removed_token_is_gone_from_everywhere_and_its_sessions_stay_lost(
    faulty: FaultyToken, probe: ModuleProbe
) -> None:
    session, key = probe.ready()
    slot = probe.value("slots")[0]
    faulty.break_with(REMOVED)

    assert probe.value("slots") == []
    assert probe.value("all_slots") != []
    assert not probe.value("slot_flags", slot) & SLOT_HAS_TOKEN
    assert [probe.rv(*call) for call in (("token", slot), ("open_session", slot))] == [TOKEN_NOT_PRESENT] * 2
    lost = (("sign_init", session, 0x1041, key), ("login", session, PIN.decode()), ("close_session", session))
    assert [probe.rv(*call) for call in lost] == [DEVICE_REMOVED] * 3
    faulty.heal()

    assert probe.value("slot_flags", slot) & SLOT_HAS_TOKEN
    assert [probe.rv(*call) for call in lost] == [SESSION_HANDLE_INVALID] * 3
    probe.value("login", probe.open(), PIN.decode())


def test_a_token_that_is_pulled_out_between_c_sign_init_and_c_sign_has_not_signed(
    faulty: FaultyToken, probe: ModuleProbe
) -> None:
    session, key = probe.ready()
    probe.value("sign_init", session, 0x1041, key)
    faulty.break_with(REMOVED)

    assert probe.rv("sign", session, bytes(32).hex()) == DEVICE_REMOVED

    assert (faulty.begun().total(), faulty.signed().total()) == (1, 0)


def test_the_nth_signature_hangs(faulty: FaultyToken, probe: ModuleProbe) -> None:
    session, key = probe.ready()
    faulty.break_with(hangs("C_Sign", at(3)))
    for _ in range(2):
        assert probe.sign(session, key).rv == OK
    probe.value("sign_init", session, 0x1041, key)

    with pytest.raises(TimeoutError):
        probe.ask("sign", session, bytes(32).hex(), seconds=0.3)


def test_a_device_error_ends_by_itself(faulty: FaultyToken, probe: ModuleProbe) -> None:
    session, key = probe.ready()
    faulty.break_with(returns("C_SignInit", DEVICE_ERROR, first(2)))

    assert [probe.sign(session, key).rv for _ in range(3)] == [DEVICE_ERROR, DEVICE_ERROR, OK]


def test_a_crash_in_c_finalize_comes_after_a_signature_that_is_good(faulty: FaultyToken, probe: ModuleProbe) -> None:
    session, key = probe.ready()
    faulty.break_with(crashes_after("C_Finalize"))
    signature = bytes.fromhex(probe.sign(session, key, bytes(range(32))).value)

    with pytest.raises(ChildProcessError) as caught:
        probe.ask("finalize")

    assert caught.value.args == (-SIGSEGV,)
    public_key = faulty.hsm.pkcs11_tool("--read-object", "--type", "pubkey", "--id", EC_ID.hex())
    verify_digest(public_key, Mechanism.ECDSA_SHA256, bytes(range(32)), ecdsa_sig_value(signature))
