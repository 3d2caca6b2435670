# SPDX-License-Identifier: Apache-2.0
"""The knobs of the lab's card: each does what it says, to the command that it names, and to no other."""

import threading
import time

import msgspec
import pytest

from lab.piv.apdu import Ins
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.orders import Await, Fault, Insert, Release, Remove, Renew, Set
from lab.piv.station import CardGoneError, Station
from lab.piv.tlv import encode

SELECT = bytes.fromhex("00A4040009A0000003080000100000")
ASK_TRIES = bytes.fromhex("00200080")
VERIFY = bytes.fromhex("0020008008") + b"731946\xff\xff"
_TEMPLATE = encode(0x7C, encode(0x82), encode(0x81, bytes(32)))
SIGN = bytes((0x00, 0x87, 0x11, 0x9A, len(_TEMPLATE))) + _TEMPLATE + b"\x00"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {0x9A: "p256"})


@pytest.fixture
def station(keys: dict[int, CardKey]) -> Station:
    fresh = Station(keys, pin="731946")
    for apdu in (SELECT, VERIFY):
        assert status(fresh, apdu) == 0x9000
    return fresh


def status(station: Station, raw: bytes) -> int:
    return int.from_bytes(station.transmit(raw)[-2:], "big")


@pytest.mark.parametrize(("after", "operations"), [(False, 2), (True, 4)])
def test_the_third_and_fourth_operation_fail_before_or_after_they_ran(
    station: Station, *, after: bool, operations: int
) -> None:
    fault = Fault(ins=Ins.GENERAL_AUTHENTICATE, act="answer", after=after, sw=0x6581, skip=2, times=2)
    station.obey(Set(faults=(fault,)))

    assert [status(station, SIGN) for _ in range(4)] == [0x9000, 0x9000, 0x6581, 0x6581]
    assert station.state.operations == operations
    assert status(station, SIGN) == 0x9000


def test_a_fault_of_verify_spares_a_question_for_the_tries(station: Station) -> None:
    station.obey(Set(faults=(Fault(ins=Ins.VERIFY, act="answer", sw=0x6F00),)))

    assert [status(station, apdu) for apdu in (ASK_TRIES, VERIFY, VERIFY)] == [0x9000, 0x6F00, 0x9000]
    assert (station.state.pins_arrived, station.state.pins_judged) == (3, 2)


@pytest.mark.parametrize(("after", "operations"), [(False, 0), (True, 1)])
def test_a_stall_holds_a_command_until_it_is_released(station: Station, *, after: bool, operations: int) -> None:
    station.obey(Set(faults=(Fault(ins=Ins.GENERAL_AUTHENTICATE, act="stall", after=after),)))
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(status(station, SIGN)))
    caller.start()

    held = station.obey(Await(counter="stalls", at_least=1, seconds=10))
    assert (held.stalls, held.operations, answers) == (1, operations, [])
    station.obey(Release())
    caller.join()

    assert answers == [0x9000]
    assert station.state.operations == 1


def test_a_stalled_command_ends_when_the_card_is_taken_out(station: Station) -> None:
    station.obey(Set(faults=(Fault(ins=Ins.GENERAL_AUTHENTICATE, act="stall"),)))
    ends: list[str] = []

    def call() -> None:
        try:
            station.transmit(SIGN)
        except CardGoneError:
            ends.append("gone")

    caller = threading.Thread(target=call)
    caller.start()
    station.obey(Await(counter="stalls", at_least=1, seconds=10))
    station.obey(Remove())
    caller.join()

    assert ends == ["gone"]
    assert station.state.operations == 0


def test_a_card_out_of_its_reader_answers_nothing_and_is_put_back_once_it_was_missed(station: Station) -> None:
    station.obey(Remove())
    with pytest.raises(CardGoneError):
        station.transmit(SELECT)
    station.power_on()
    assert station.state.power_ons == 0
    station.report_absence()

    assert station.obey(Insert()).is_present
    assert status(station, SELECT) == 0x9000


def test_a_delay_comes_before_its_command_only(station: Station) -> None:
    station.obey(Set(delays_ms={Ins.GENERAL_AUTHENTICATE: 50}))
    started_s = time.monotonic()

    assert status(station, SIGN) == 0x9000

    assert time.monotonic() - started_s >= 0.05


def test_the_record_has_no_data_and_a_renewed_card_has_no_record(station: Station) -> None:
    status(station, SIGN)

    recorded = msgspec.json.decode(msgspec.json.encode(station.state))

    assert [set(apdu) for apdu in recorded["commands"]] == [{"ins", "p1", "p2", "sw"}] * 3
    assert b"731946" not in msgspec.json.encode(station.state)
    renewed = station.obey(Renew())
    assert (renewed.commands, renewed.pins_arrived, renewed.operations, renewed.tries_left) == ((), 0, 0, 3)


def test_pin_and_tries_are_what_they_were_set_to(station: Station) -> None:
    station.obey(Set(pin="111111", tries_left=2))

    assert status(station, VERIFY) == 0x63C1
    assert station.state.tries_left == 1
