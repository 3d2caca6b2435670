# SPDX-License-Identifier: Apache-2.0
"""The shim itself: every function can be made to fail, in the calls that are meant and in no other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.fault_shim import FaultyToken, around
from lab.module_probe import ModuleProbe, probing
from lab.shim_orders import aborts, at, chance, crashes_after, delays, every, first, hangs, hangs_after, returns
from privyseal.tokens.cryptoki_types import PROTOTYPES
from softhsm import fresh_softhsm

OK = 0x0
DEVICE_ERROR = 0x30
SIGABRT, SIGSEGV = 6, 11


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyToken:
    return around(fresh_softhsm(tmp_path))


@pytest.fixture
def probe(faulty: FaultyToken) -> Iterator[ModuleProbe]:
    with probing(faulty) as one:
        yield one


def slot_lists(probe: ModuleProbe, count: int) -> list[int]:
    """CK_RV of C_GetSlotList, called with nothing to put its answer into: CKR_ARGUMENTS_BAD (7) comes from SoftHSM2."""
    return [probe.value("raw", "C_GetSlotList") for _ in range(count)]


def test_each_function_that_we_call_can_fail_and_is_logged(faulty: FaultyToken, probe: ModuleProbe) -> None:
    faulty.break_with(*(returns(function, 0x80000000 + place) for function, (place, _) in PROTOTYPES.items()))

    found = {function: probe.value("raw", function) for function in PROTOTYPES}

    assert found == {function: 0x80000000 + place for function, (place, _) in PROTOTYPES.items()}
    assert {function: faulty.calls(function) for function in PROTOTYPES} == dict.fromkeys(PROTOTYPES, 1)


@pytest.mark.parametrize("function", PROTOTYPES)
def test_each_function_can_crash_after_its_work(faulty: FaultyToken, probe: ModuleProbe, function: str) -> None:
    faulty.break_with(crashes_after(function))

    with pytest.raises(ChildProcessError) as caught:
        probe.ask("raw", function)

    assert caught.value.args == (-SIGSEGV,)


@pytest.mark.parametrize("function", PROTOTYPES)
def test_each_function_can_hang_after_its_work(faulty: FaultyToken, probe: ModuleProbe, function: str) -> None:
    faulty.break_with(hangs_after(function))

    with pytest.raises(TimeoutError):
        probe.ask("raw", function, seconds=0.3)

    assert (faulty.calls(function), faulty.calls(f"{function}-done")) == (1, 1)


def test_a_crash_after_the_work_leaves_a_signature_that_nobody_got(faulty: FaultyToken, probe: ModuleProbe) -> None:
    session, key = probe.ready()
    faulty.break_with(crashes_after("C_Sign"))

    with pytest.raises(ChildProcessError):
        probe.sign(session, key, bytes(range(32)))

    digest = bytes(range(32)).hex()
    assert (faulty.begun(), faulty.signed()) == ({digest: 1}, {digest: 1})


@pytest.mark.parametrize("order", [hangs("C_Sign"), aborts("C_Sign"), returns("C_Sign", DEVICE_ERROR)])
def test_a_fault_before_the_work_leaves_no_signature(faulty: FaultyToken, probe: ModuleProbe, order: str) -> None:
    session, key = probe.ready()
    faulty.break_with(order)

    try:
        assert probe.ask("sign_init", session, 0x1041, key).rv == OK
        ended: object = probe.ask("sign", session, bytes(32).hex(), seconds=0.3).rv
    except ChildProcessError as error:
        ended = error.args[0]
    except TimeoutError:
        ended = "hangs"

    assert ended == {"hang": "hangs", "abort": -SIGABRT, "rv": DEVICE_ERROR}[order.split()[1]]
    assert (faulty.begun().total(), faulty.signed().total()) == (1, 0)


def test_the_nth_call_and_every_nth_call_are_counted_from_when_they_were_ordered(
    faulty: FaultyToken, probe: ModuleProbe
) -> None:
    probe.value("initialize")
    slot_lists(probe, 2)
    faulty.break_with(returns("C_GetSlotList", 0xA, at(2)), returns("C_GetSlotList", 0xB, every(3)))

    assert slot_lists(probe, 7) == [7, 0xA, 0xB, 7, 7, 0xB, 7]

    faulty.break_with(returns("C_GetSlotList", 0xA, at(2)))
    assert slot_lists(probe, 3) == [7, 0xA, 7]


def test_the_nth_call_is_that_of_each_process(faulty: FaultyToken) -> None:
    faulty.break_with(returns("C_GetSlotList", 0xA, at(2)))
    for _ in range(2):
        with probing(faulty) as probe:
            probe.value("initialize")
            assert slot_lists(probe, 3) == [7, 0xA, 7]


def test_a_device_error_heals_after_so_many_calls_of_all_processes(faulty: FaultyToken) -> None:
    faulty.break_with(returns("C_GetSlotList", DEVICE_ERROR, first(3)))
    found = []
    for _ in range(2):
        with probing(faulty) as probe:
            probe.value("initialize")
            found += slot_lists(probe, 2)

    assert found == [DEVICE_ERROR, DEVICE_ERROR, DEVICE_ERROR, 7]


def test_chance_is_the_same_for_the_same_seed_and_goes_on_in_the_next_process(faulty: FaultyToken) -> None:
    def drawn(seed: int, *, processes: int) -> list[bool]:
        faulty.break_with(returns("C_GetSlotList", DEVICE_ERROR, chance(20, seed=seed)))
        found: list[int] = []
        for _ in range(processes):
            with probing(faulty) as probe:
                probe.value("initialize")
                found += slot_lists(probe, 600 // processes)
        return [rv == DEVICE_ERROR for rv in found]

    whole = drawn(1, processes=1)

    assert whole == drawn(1, processes=2)
    assert whole != drawn(2, processes=1)
    assert 80 <= sum(whole) <= 160, "20 % of 600, within four standard deviations"


def test_a_delay_goes_before_the_work_and_before_another_order(faulty: FaultyToken, probe: ModuleProbe) -> None:
    probe.value("initialize")
    faulty.break_with(delays("C_GetSlotList", 300), returns("C_GetSlotList", DEVICE_ERROR))

    with pytest.raises(TimeoutError):
        probe.ask("raw", "C_GetSlotList", seconds=0.2)


HOSTILE = (
    "C_GetSlotList",
    "C_GetSlotList rv",
    "C_GetSlotList rv 0",
    "C_GetSlotList rv xyz",
    "C_GetSlotList rv 0x30",
    "C_GetSlotList rv -1",
    "C_GetSlotList rv 11112222333344445",
    "C_GetSlotList rv 30 more",
    "C_GetSlotList rv 30 @",
    "C_GetSlotList rv 30 @0",
    "C_GetSlotList rv 30 /0",
    "C_GetSlotList rv 30 @1 @1",
    "C_GetSlotList rv 30 %100",
    "C_GetSlotList rv 30 %101 1",
    "C_GetSlotList rv 30 %nan 1",
    "C_GetSlotList rv 30 %1.0.0 1",
    "C_GetSlotList rv 30 % 1",
    "C_GetSlotList rv 30 %100 1 1",
    "C_GetSlotList delay",
    "C_GetSlotList delay 999999999",
    "C_GetSlotList maker Lab",
    "C_GetSlotList small",
    "C_GetSlotList explode",
    "C_GetSlotlist rv 30",
    "rv 30",
    "quirk",
    "quirk removed now",
    "quirk empty-after-open",
    "quirk empty-after-open soon",
    "quirk busy-after-close 100000 0",
    "quirk pin-counter 0",
    "quirk session-cap -1",
    "%s%s%s%n",
    " " * 200 + "C_GetSlotList rv 30",
    "x" * 200 + " C_GetSlotList rv 30",
    "C_GetSlotList rv 30\0@2",
    "\xff\xfe\x00",
)


def test_lines_that_are_no_orders_are_ignored_and_those_around_them_are_not(
    faulty: FaultyToken, probe: ModuleProbe
) -> None:
    probe.value("initialize")
    for line in HOSTILE:
        faulty.break_with(line)
        assert slot_lists(probe, 1) == [7], line

    faulty.break_with(*HOSTILE, "  C_GetSlotList\trv  30  ", *HOSTILE)
    assert slot_lists(probe, 1) == [DEVICE_ERROR]


def test_orders_without_a_file_for_them_are_none(faulty: FaultyToken, probe: ModuleProbe) -> None:
    probe.value("initialize")
    faulty.break_with(returns("C_GetSlotList", DEVICE_ERROR))
    assert slot_lists(probe, 1) == [DEVICE_ERROR]

    faulty.heal()

    assert slot_lists(probe, 1) == [7]
