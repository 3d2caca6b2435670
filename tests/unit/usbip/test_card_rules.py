# SPDX-License-Identifier: Apache-2.0
"""What a lease's rules refuse never reaches the reader, and a lease ends when its rules say so."""

from dataclasses import replace
from typing import Any

import pytest

from lab.piv.station import Station
from lab.piv.tpdu import ATR_T0, T0Card
from piv_script import PIN, SELECT, WRONG_PIN, Transmit, run, sign_ec, sign_rsa, verify
from privyseal.usbip.card_events import (
    AnswerInstead,
    Blind,
    EndLease,
    EndReason,
    Forward,
    KeyUse,
    LeaseEnds,
    LeaseRules,
    Outcome,
    PinOutcome,
    PinVerification,
    PrivateKeyOperation,
    Unproven,
    Verdict,
)
from privyseal.usbip.card_watch import CardWatch
from watched_readers import (
    CHARACTER,
    EXTENDED,
    SHORT,
    TPDU,
    LeaseOverError,
    Reader,
    T1Driver,
    Wire,
    data_block,
    message,
)

GENERATE = bytes.fromhex("0047009A05AC03800107")
READ_PUBLIC = bytes.fromhex("0047810002B60000")
CHANGE = bytes.fromhex("0024008010") + bytes(16)
PUT_DATA = bytes.fromhex("00DB3FFF0A5C035FC1055303700100")
RESET = bytes.fromhex("00FB0000")
VENDOR = bytes.fromhex("80680102")
ENVELOPE = bytes.fromhex("00C2000005") + GENERATE[:5]
OPERATION_OK = PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.OK)

OF_RULE: list[tuple[dict[str, Any], list[bytes], list[bytes]]] = [
    ({"refuse_key_generation": True}, [GENERATE], [READ_PUBLIC, CHANGE, PUT_DATA, VENDOR]),
    ({"refuse_pin_change": True}, [CHANGE], [GENERATE, PUT_DATA, verify(PIN)]),
    ({"refuse_initialisation": True}, [PUT_DATA, RESET], [GENERATE, CHANGE]),
    ({"refuse_unreadable": True}, [VENDOR, ENVELOPE], [GENERATE, CHANGE, PUT_DATA]),
    ({"max_private_key_operations": 0}, [sign_ec(), sign_rsa(chained=True)[0]], [GENERATE, SELECT]),
]


def on_the_way(level: str, rules: LeaseRules, seen: list[bytes], transmit: Transmit | None = None) -> Wire:
    """A reader that is switched on, and notes what reaches the card."""

    def card(apdu: bytes) -> bytes:
        seen.append(apdu)
        return b"\x90\x00" if transmit is None else transmit(apdu)

    if level == "t0":
        wire = Wire(Reader(TPDU, card, atr=ATR_T0), level=TPDU, rules=rules)
    else:
        number = SHORT if level == "short" else EXTENDED
        wire = Wire(Reader(number, card), level=number, rules=rules)
    wire.power_on()
    return wire


@pytest.mark.parametrize("level", ["short", "extended", "t0"])
@pytest.mark.parametrize(("rule", "refused", "allowed"), OF_RULE)
def test_what_a_rule_refuses_is_answered_in_the_cards_place(
    level: str, rule: dict[str, Any], refused: list[bytes], allowed: list[bytes]
) -> None:
    seen: list[bytes] = []
    wire = on_the_way(level, LeaseRules(**rule), seen)

    assert [wire.transfer(apdu) for apdu in refused] == [bytes.fromhex("6982")] * len(refused)
    assert seen == []
    assert [wire.transfer(apdu) for apdu in allowed] == [b"\x90\x00"] * len(allowed)
    assert seen == allowed
    counts = wire.watch.counts
    assert counts.refused == len(refused)
    assert counts.apdus == len(allowed)


@pytest.mark.parametrize(("rule", "refused", "allowed"), OF_RULE)
def test_where_blocks_are_numbered_a_refusal_ends_the_lease(
    rule: dict[str, Any], refused: list[bytes], allowed: list[bytes]
) -> None:
    for apdu in refused:
        seen: list[bytes] = []

        def card(command: bytes, seen: list[bytes] = seen) -> bytes:
            seen.append(command)
            return b"\x90\x00"

        driver = T1Driver(card, rules=LeaseRules(**rule), ifs=5)
        run(driver.transmit, allowed)
        with pytest.raises(LeaseOverError, match="command-refused"):
            driver.transmit(apdu)
        assert seen == allowed


def test_a_refused_command_in_parts_is_refused_in_all_of_them() -> None:
    seen: list[bytes] = []
    wire = on_the_way("extended", LeaseRules(refuse_key_generation=True), seen)

    parts = [(1, GENERATE[:4]), (3, GENERATE[4:6]), (2, GENERATE[6:])]
    assert [wire.ask(0x6F, part, level=level)[2] for level, part in parts] == [bytes.fromhex("6982")] * 3
    assert wire.transfer(SELECT) == b"\x90\x00"
    with pytest.raises(LeaseOverError):
        wire.ask(0x6F, GENERATE, level=2)
    assert seen == [SELECT]


def test_a_command_in_links_is_refused_at_its_first() -> None:
    seen: list[bytes] = []
    wire = on_the_way("short", LeaseRules(refuse_key_generation=True), seen)

    assert wire.transfer(b"\x10" + GENERATE[1:]) == bytes.fromhex("6982")
    assert wire.transfer(b"\x0c" + GENERATE[1:]) == bytes.fromhex("6982"), "under secure messaging as well"
    assert seen == []


@pytest.mark.parametrize("level", ["short", "extended", "t0"])
def test_the_last_operation_ends_the_lease_once_its_answer_was_fetched(level: str, station: Station) -> None:
    seen: list[bytes] = []
    answers = T0Card(station.transmit).block if level == "t0" else station.transmit
    wire = on_the_way(level, LeaseRules(max_private_key_operations=1), seen, answers)
    for apdu in (SELECT, verify(PIN), sign_rsa(chained=True)[0]):
        wire.transfer(apdu)
    last = sign_rsa(chained=True)[1]
    answer = wire.transfer(last[:-1] if level == "t0" else last)
    assert answer is not None
    assert answer[-2] == 0x61
    assert wire.events[-1:] == [OPERATION_OK]

    while answer is not None and answer[-2] == 0x61:
        answer = wire.transfer(bytes((0x00, 0xC0, 0x00, 0x00, answer[-1])))

    assert answer is not None
    assert answer[-2:] == b"\x90\x00"
    assert wire.events[-1:] == [LeaseEnds(reason=EndReason.OPERATIONS)]
    with pytest.raises(LeaseOverError, match="operations-used-up"):
        wire.transfer(sign_ec())
    assert station.state.operations == 1
    wire.watch.finish()
    assert wire.watch.counts.total("private-key-operation") == 1, "what never reached the card does not count"


def test_operations_of_unknown_outcome_use_up_a_lease() -> None:
    wire = on_the_way("short", LeaseRules(max_private_key_operations=2), [], lambda _: bytes.fromhex("6F00"))
    wire.transfer(sign_ec())
    assert not any(isinstance(event, LeaseEnds) for event in wire.events)
    wire.transfer(sign_ec())

    assert wire.events[-1] == LeaseEnds(reason=EndReason.OPERATIONS)


def test_operations_that_were_refused_do_not(station: Station) -> None:
    wire = on_the_way("short", LeaseRules(max_private_key_operations=1), [], station.transmit)
    for apdu in (SELECT, sign_ec(), sign_ec(), verify(PIN)):
        wire.transfer(apdu)

    assert wire.watch.counts.total("private-key-operation", "refused") == 2
    assert len(wire.transfer(sign_ec()) or b"") > 60
    assert wire.events[-2:] == [OPERATION_OK, LeaseEnds(reason=EndReason.OPERATIONS)]


def test_operations_in_t1_blocks_end_it_with_the_last_block(station: Station) -> None:
    driver = T1Driver(station.transmit, rules=LeaseRules(max_private_key_operations=1), ifs=16)

    run(driver.transmit, [SELECT, verify(PIN), sign_ec()])

    assert driver.wire.events[-2:] == [OPERATION_OK, LeaseEnds(reason=EndReason.OPERATIONS)]
    with pytest.raises(LeaseOverError, match="operations-used-up"):
        driver.transmit(sign_ec()[:20])
    driver.wire.watch.finish()
    assert driver.wire.watch.counts.total("private-key-operation") == 1


def test_operations_at_the_same_time_in_two_slots() -> None:
    """A reader may have one command under way in each slot: both count."""
    descriptor = replace(Wire(Reader(SHORT, lambda _: b""), level=SHORT).watch._descriptor, max_slot_index=1)  # type: ignore[type-var]
    watch = CardWatch(descriptor, packet_bytes=64, rules=LeaseRules(max_private_key_operations=1))

    assert isinstance(watch.command(message(0x6F, 1, sign_ec())), Forward)
    second = watch.command(message(0x6F, 2, sign_ec(), slot=1))

    assert isinstance(second, AnswerInstead)
    assert second.payload[5] == 1
    assert second.payload[-2:] == bytes.fromhex("6982")


def test_an_operation_that_a_card_refused_is_none_under_way_in_another_slot() -> None:
    descriptor = replace(Wire(Reader(SHORT, lambda _: b""), level=SHORT).watch._descriptor, max_slot_index=1)  # type: ignore[type-var]
    watch = CardWatch(descriptor, packet_bytes=64, rules=LeaseRules(max_private_key_operations=1))
    watch.command(message(0x6F, 1, sign_ec()))
    watch.answer(data_block(1, bytes.fromhex("6982")))

    assert isinstance(watch.command(message(0x6F, 2, sign_ec(), slot=1)), Forward)


def test_the_first_refused_pin_ends_the_lease(station: Station) -> None:
    wire = on_the_way("short", LeaseRules(end_at_refused_pin=True), [], station.transmit)
    for apdu in (SELECT, verify(PIN), bytes.fromhex("00200080"), bytes.fromhex("002000800431313131")):
        wire.transfer(apdu)
    assert not any(isinstance(event, LeaseEnds) for event in wire.events)

    wire.transfer(verify(WRONG_PIN))

    assert wire.events[-2:] == [
        PinVerification(outcome=PinOutcome.REFUSED, tries_left=2),
        LeaseEnds(reason=EndReason.PIN_REFUSED),
    ]
    with pytest.raises(LeaseOverError, match="pin-refused"):
        wire.transfer(verify(WRONG_PIN))
    assert station.state.pins_judged == 2


STRICT = LeaseRules(refuse_key_generation=True)


def unreadable(watch: CardWatch, *payloads: bytes) -> Verdict:
    verdict: Verdict = Forward()
    for payload in payloads:
        assert isinstance(verdict, Forward)
        verdict = watch.command(payload)
    return verdict


@pytest.mark.parametrize(
    "payloads",
    [
        [message(0x6F, 1, SELECT)[:5]],
        [message(0x6F, 1, bytes(200))[:64]],
        [message(0x6F, 1, SELECT) + b"\0"],
        [message(0x6F, 1, SELECT) + message(0x6F, 2, GENERATE)],
        [message(0x6F, 1, bytes(4000))],
        [message(0x6F, 1, GENERATE[:3], level=1)],
        [message(0x6F, 1, GENERATE, level=3)],
        [message(0x6F, 1, GENERATE, level=7)],
        [message(0x6F, 1, GENERATE, level=0x10)],
        [message(0x6F, 1, b"\0")],
        [message(0x69, 1, b"\0" * 15 + GENERATE)],
        [message(0x6F, 1, SELECT, slot=3)],
    ],
)
def test_under_rules_what_cannot_be_read_ends_the_lease_before_the_reader_has_it(payloads: list[bytes]) -> None:
    watch = on_the_way("extended", STRICT, []).watch

    verdict = unreadable(watch, *payloads)

    assert isinstance(verdict, EndLease)
    assert verdict.reason is EndReason.UNREADABLE


@pytest.mark.parametrize("block", ["00C2000042", "0040", "00000600", "00200347009ABB", "00400400A40000E0"])
def test_and_so_do_blocks(block: str) -> None:
    """An abort of the host's, whose chain the card may keep; blocks cut short; a first part without P1 and P2; a block
    out of turn.
    """
    driver = T1Driver(lambda _: b"\x90\x00", rules=STRICT)

    with pytest.raises(LeaseOverError, match="unreadable"):
        driver.wire.transfer(bytes.fromhex(block))


@pytest.mark.parametrize("level", [CHARACTER, TPDU])
def test_and_so_do_readers_whose_blocks_say_nothing(level: int) -> None:
    wire = Wire(Reader(level, lambda _: b"", atr=bytes.fromhex("3B800E")), level=level, rules=STRICT)
    wire.power_on()

    with pytest.raises(LeaseOverError, match="unreadable"):
        wire.transfer(SELECT)
    assert wire.watch.counts.unproven[0] in (Blind.CHARACTER_LEVEL, Blind.PROTOCOL)


def test_and_devices_that_are_no_readers() -> None:
    watch = CardWatch(None, packet_bytes=64, rules=STRICT)

    assert watch.command(b"x") == EndLease(reason=EndReason.UNREADABLE, events=(Unproven(reason=Blind.NOT_CCID),))


@pytest.mark.parametrize("first", [message(0x6F, 1, SELECT), message(0x62, 1), message(0x61, 1, bytes(7))])
def test_under_rules_a_second_command_waits_for_the_answer_to_the_first(first: bytes) -> None:
    wire = on_the_way("short", STRICT, [])
    assert isinstance(wire.watch.command(first), Forward)

    verdict = wire.watch.command(message(0x6F, 2, SELECT))

    assert isinstance(verdict, AnswerInstead)
    assert verdict.payload == data_block(2, status=0x40, error=0xE0)
    # The host can always give up what it waits for.
    assert isinstance(wire.watch.command(message(0x72, 3)), Forward)
    assert wire.watch.answer(message(0x81, 3)) == ()
    assert isinstance(wire.watch.command(message(0x6F, 4, SELECT)), Forward)


def test_commands_to_the_reader_that_nobody_can_read_are_refused_as_unknown() -> None:
    watch = on_the_way("short", LeaseRules(refuse_unreadable=True), []).watch

    escape, other = watch.command(message(0x6B, 1, b"x")), watch.command(message(0x10, 2))

    assert isinstance(escape, AnswerInstead)
    assert isinstance(other, AnswerInstead)
    assert (escape.payload[0], escape.payload[6:10]) == (0x83, bytes((1, 0x40, 0, 0)))
    assert (other.payload[0], other.payload[6:10]) == (0x81, bytes((2, 0x40, 0, 0)))
    assert watch.counts.unproven == ()


def test_pins_from_the_readers_own_keys() -> None:
    rules = LeaseRules(refuse_pin_change=True, end_at_refused_pin=True)
    watch = on_the_way("short", rules, []).watch
    change = b"\x01" + bytes(19) + bytes.fromhex("00240080")

    refused = watch.command(message(0x69, 1, change))
    assert isinstance(refused, AnswerInstead)
    assert refused.payload == data_block(1, bytes.fromhex("6982"))
    assert isinstance(watch.command(message(0x69, 2, bytes(15) + bytes.fromhex("00200080"))), Forward)
    assert watch.answer(data_block(2, bytes.fromhex("63C2")))[-1] == LeaseEnds(reason=EndReason.PIN_REFUSED)
    assert watch.command(message(0x69, 3, change)) == EndLease(reason=EndReason.PIN_REFUSED)
