# SPDX-License-Identifier: Apache-2.0
"""The audit of a reader takes anything from both sides in bounded memory, and lets no byte of a PIN out or stay."""

import gc
import time
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canaries import shown
from lab.piv.tpdu import ATR_T0
from lab.piv.vpcd import ATR as ATR_T1
from piv_script import SELECT, sign_ec
from privyseal.usbip.card_events import AnswerInstead, EndLease, Forward, LeaseRules, Verdict
from privyseal.usbip.card_watch import CardWatch
from privyseal.usbip.ccid import ClassDescriptor
from watched_readers import (
    ATR_BOTH,
    EXTENDED,
    SHORT,
    TPDU,
    ApduDriver,
    LeaseOverError,
    Reader,
    T0Driver,
    T1Driver,
    Wire,
    data_block,
    message,
)

LEVELS = (0, TPDU, SHORT, EXTENDED)

rules = st.builds(
    LeaseRules,
    refuse_key_generation=st.booleans(),
    refuse_pin_change=st.booleans(),
    refuse_unreadable=st.booleans(),
    max_private_key_operations=st.none() | st.integers(0, 3),
    end_at_refused_pin=st.booleans(),
)


def held(root: object) -> Iterator[object]:
    """All that an object holds, directly or not."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType):
            continue
        seen.add(id(one))
        yield one
        waiting += gc.get_referents(one)


def held_bytes(root: object) -> int:
    return sum(len(one) for one in held(root) if isinstance(one, bytes | bytearray))


blocks = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([SELECT, sign_ec(), b"\x90\x00", b"\x61\x10", b"\x6c\x10", b"\x63\xc1"]),
    # Blocks of T=1 with the right length, most with a wrong LRC.
    st.builds(lambda pcb, inf: bytes((0, pcb, len(inf))) + inf + b"\0", st.integers(0, 255), st.binary(max_size=9)),
    # Commands of every INS and class.
    st.builds(
        lambda head, data: head + bytes((len(data),)) + data, st.binary(min_size=4, max_size=4), st.binary(max_size=9)
    ),
)
numbers = st.integers(0, 3)
commands = st.builds(
    message,
    st.sampled_from([0x61, 0x62, 0x63, 0x65, 0x69, 0x6B, 0x6C, 0x6F, 0x6F, 0x6F, 0x72, 0x00]),
    numbers,
    blocks,
    level=st.sampled_from([0, 0, 0, 1, 2, 3, 0x10, 9]),
    slot=st.sampled_from([0, 0, 0, 1, 200]),
)
answers = st.one_of(
    st.builds(
        data_block,
        numbers,
        blocks | st.sampled_from([ATR_T0, ATR_T1, ATR_BOTH]),
        chain=st.sampled_from([0, 0, 0, 1, 2, 3, 0x10, 9]),
        status=st.sampled_from([0, 0, 0, 0x40, 0x80, 0xC0]),
        error=st.sampled_from([0, 5, 0xE0, 0xFE]),
    ),
    st.builds(message, st.sampled_from([0x81, 0x82, 0x83, 0x50]), numbers, st.binary(max_size=8)),
)


def cut(payload: bytes, at: int) -> bytes:
    return payload[:at] if at % 3 == 0 else payload[at:] if at % 3 == 1 else payload


payloads = st.builds(cut, commands | answers, st.integers(0, 40)) | st.binary(max_size=80)


@settings(deadline=None, max_examples=400)
@given(
    level=st.sampled_from(LEVELS),
    given_rules=rules | st.just(LeaseRules()),
    steps=st.lists(st.tuples(st.booleans(), payloads | commands | answers), max_size=40),
)
def test_it_takes_anything(level: int, given_rules: LeaseRules, steps: list[tuple[bool, bytes]]) -> None:
    descriptor = ClassDescriptor(max_slot_index=1, max_message_bytes=300, features=level)
    watch = CardWatch(descriptor, packet_bytes=8, rules=given_rules)

    for is_command, payload in steps:
        if is_command:
            verdict: Verdict = watch.command(payload)
            assert isinstance(verdict, Forward | AnswerInstead | EndLease)
            assert isinstance(verdict, Forward) or given_rules.is_strict
        else:
            watch.answer(payload)
    watch.finish()

    assert watch.finish() == ()
    counts = watch.counts
    assert counts.command_bytes == sum(len(payload) for is_command, payload in steps if is_command)
    assert held_bytes(watch) < 20_000


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("part", [1, 2, 3])
def test_its_memory_and_time_are_bounded(level: int, part: int) -> None:
    """Messages that never end, commands that never end, and commands that nobody answers."""
    descriptor = ClassDescriptor(max_slot_index=255, max_message_bytes=2**32 - 1, features=level)
    watch = CardWatch(descriptor, packet_bytes=64, rules=LeaseRules())
    began_s = time.monotonic()
    watch.command(message(0x62, 1))
    watch.answer(data_block(1, ATR_T1))
    for number in range(400):
        slot, sequence = number % 256, number // 256
        block = bytes((0, 0x20 | (number & 1) << 6, 254)) + bytes((0x10, 0x87)) + bytes(252) + b"\0"
        watch.command(message(0x6F, sequence, block * 50, level=part, slot=slot))
        watch.answer(data_block(sequence, bytes((0, 0x80 | (~number & 1) << 4, 0, 0)), chain=part))
    watch.command(message(0x6F, 1, bytes(70_000)))
    watch.command(message(0x6F, 1)[:1] + (60_000).to_bytes(4, "little") + bytes(50_000))

    assert held_bytes(watch) < 400_000
    assert time.monotonic() - began_s < 10


def pieces_of(size: int) -> Callable[[bytes], list[bytes]]:
    return lambda payload: [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]


def conversation(level: str, pin: bytes, given_rules: LeaseRules, size: int) -> tuple[Callable[[bytes], bytes], Wire]:
    """A host's hand on a card that has this PIN, in a reader of this level."""

    def card(apdu: bytes) -> bytes:
        return b"\x90\x00" if pin in apdu else b"\x63\xc2"

    if level == "t1":
        driver = T1Driver(card, rules=given_rules, ifs=1 + size % 9)
        driver.wire._pieces = pieces_of(size)
        return driver.transmit, driver.wire
    number = {"t0": TPDU, "short": SHORT, "extended": EXTENDED}[level]
    atr = ATR_T0 if level == "t0" else ATR_T1
    wire = Wire(Reader(number, card, atr=atr), level=number, rules=given_rules)
    host = T0Driver(wire) if level == "t0" else ApduDriver(wire, part_bytes=7 if level == "extended" else 2000)
    wire._pieces = pieces_of(size)
    return host.transmit, wire


def holds(pin: bytes, root: object) -> bool:
    return any(shown(pin, bytes(one)) for one in held(root) if isinstance(one, bytes | bytearray))


def test_a_pin_that_never_came_whole_does_not_stay() -> None:
    watch = CardWatch(
        ClassDescriptor(max_slot_index=0, max_message_bytes=300, features=SHORT), packet_bytes=8, rules=LeaseRules()
    )
    watch.command(message(0x6F, 1, bytes.fromhex("0020008008") + b"731946--")[:-1])
    assert holds(b"731946", watch)

    watch.finish()

    assert not holds(b"731946", watch)


FORMS: tuple[Callable[[bytes], bytes], ...] = (
    lambda pin: bytes((0x00, 0x20, 0x00, 0x80, len(pin))) + pin,
    lambda pin: bytes((0x00, 0x24, 0x00, 0x80, 2 * len(pin))) + pin + pin,
    lambda pin: bytes((0x00, 0x2C, 0x00, 0x80, len(pin))) + pin,
    lambda pin: bytes((0x10, 0x20, 0x00, 0x80, len(pin))) + pin,
    lambda pin: bytes((0x0C, 0x20, 0x00, 0x80, len(pin))) + pin,
    lambda pin: bytes((0x80, 0x20, 0x00, 0x80, len(pin))) + pin,
    lambda pin: bytes((0x00, 0x20, 0x00, 0x80, 0x00, 0x00, len(pin))) + pin,
    lambda pin: bytes((0x00, 0x87, 0x11, 0x9C, len(pin))) + pin,
    lambda pin: bytes((0x00, 0xDB, 0x3F, 0xFF, len(pin))) + pin,
    lambda pin: bytes((0x00, 0x20, 0x00, 0x80, 0x02)) + pin,
    lambda pin: pin,
)

#: Six characters or more, of which none repeats what a message or a test is made of.
pins = st.binary(min_size=6, max_size=12).filter(lambda pin: len(set(pin)) > 4 and 0 not in pin)


@settings(deadline=None, max_examples=250)
@given(
    level=st.sampled_from(["t0", "t1", "short", "extended"]),
    pin=pins,
    form=st.sampled_from(FORMS),
    size=st.sampled_from([3, 10, 11, 64, 4096]),
    given_rules=rules | st.just(LeaseRules()),
)
def test_no_pin_is_shown_or_stays(
    level: str, pin: bytes, form: Callable[[bytes], bytes], size: int, given_rules: LeaseRules
) -> None:
    told: list[object] = []
    transmit, wire = conversation(level, pin, given_rules, size)
    wire.inspect = told.append
    try:
        for _ in range(2):
            transmit(form(pin))
            assert not holds(pin, wire.watch), "nothing of a command stays once it is answered"
        transmit(SELECT)
    except LeaseOverError as error:
        told.append(repr(error) + str(error))
    told += [wire.watch.finish(), wire.watch.counts, wire.watch, *wire.events]

    for one in told:
        assert not shown(pin, (repr(one) + str(one)).encode())
        assert not holds(pin, one)
