# SPDX-License-Identifier: Apache-2.0
"""What the audit cannot see, or cannot be sure of, it says."""

import pytest

from lab.piv.station import Station
from piv_script import PIN, QUESTION, SELECT, run, script, sign_ec, verify
from privyseal.usbip.card_events import (
    Blind,
    KeyUse,
    LeaseRules,
    Outcome,
    PinChange,
    PinOutcome,
    PinVerification,
    PrivateKeyOperation,
    Unproven,
)
from privyseal.usbip.card_watch import CardWatch
from watched_readers import (
    CHARACTER,
    SHORT,
    ApduDriver,
    Reader,
    Wire,
    data_block,
    message,
)


@pytest.mark.parametrize(("size", "unproven"), [(64, ()), (128, ()), (10, (Blind.FRAMING,)), (1, (Blind.FRAMING,))])
def test_messages_in_pieces_are_put_together(size: int, unproven: tuple[Blind, ...], station: Station) -> None:
    """And where a piece ends a transfer, who knows what the reader makes of it."""

    def pieces(payload: bytes) -> list[bytes]:
        return [payload[at : at + size] for at in range(0, len(payload), size)]

    wire = Wire(Reader(SHORT, station.transmit), level=SHORT, pieces=pieces)
    run(ApduDriver(wire).transmit, script(chained=True))

    assert wire.watch.counts.unproven == unproven
    assert wire.watch.counts.total("private-key-operation", "ok") == station.state.operations == 4
    assert wire.watch.counts.total("pin-verification", "accepted", "refused") == station.state.pins_judged


def test_a_message_within_a_cut_one_makes_it_unproven(station: Station) -> None:
    """A reader that drops what a short transfer left, and takes the next as a message of its own."""
    wire = Wire(Reader(SHORT, station.transmit), level=SHORT)
    driver = ApduDriver(wire)
    run(driver.transmit, [SELECT, verify(PIN)])
    inner = message(0x6F, 50, sign_ec())
    cut = message(0x6F, 50, bytes(len(inner)))[:20]

    events = [event for payload in (cut, inner) for event in wire.watch.command(payload).events]

    assert Unproven(reason=Blind.FRAMING) in events


@pytest.mark.parametrize(
    ("command", "answer", "blind"),
    [
        ("80680102", "9000", Blind.VENDOR_COMMAND),
        ("80680102", "6D00", None),
        ("80680102", "6E00", None),
        ("00C200000301020300", "9000", Blind.TUNNEL),
        ("00EE0000", "9000", Blind.UNKNOWN_COMMAND),
        ("00EE0000", "6D00", None),
        ("2087119C", "9000", Blind.VENDOR_COMMAND),
        ("00A40400FF01", "9000", Blind.MALFORMED_COMMAND),
        ("00A40400FF01", "6700", None),
        ("00A4", "9000", Blind.MALFORMED_COMMAND),
    ],
)
def test_commands_that_nobody_can_read(command: str, answer: str, blind: Blind | None) -> None:
    wire = Wire(Reader(SHORT, lambda _: bytes.fromhex(answer)), level=SHORT)
    run(ApduDriver(wire).transmit, [bytes.fromhex(command)] * 2)

    assert wire.events == ([] if blind is None else [Unproven(reason=blind)]), "told once"
    assert wire.watch.counts.unproven == (() if blind is None else (blind,))


def test_a_device_that_is_no_reader() -> None:
    watch = CardWatch(None, packet_bytes=64, rules=LeaseRules())

    assert watch.command(b"anything").events == (Unproven(reason=Blind.NOT_CCID),)
    assert watch.answer(b"anything") == ()
    assert watch.counts.unproven == (Blind.NOT_CCID,)
    assert (watch.counts.command_bytes, watch.counts.answer_bytes) == (8, 8)


def test_a_reader_that_exchanges_characters() -> None:
    wire = Wire(Reader(CHARACTER, lambda _: b"\x90\x00"), level=CHARACTER)
    wire.power_on()
    wire.transfer(SELECT)

    assert wire.watch.counts.unproven == (Blind.CHARACTER_LEVEL,)


def test_vendors_commands_to_the_reader() -> None:
    wire = Wire(Reader(SHORT, lambda _: b"\x90\x00"), level=SHORT)
    wire.ask(0x6B, b"anything")
    assert wire.events == [], "the reader does not know it"

    wire.watch.command(message(0x6B, 9, b"anything"))
    answer = message(0x83, 9, b"done")

    assert wire.watch.answer(answer) == (Unproven(reason=Blind.READER_COMMAND),)


VERIFY_PAD = bytes.fromhex("00 00 82 04 00 0806 02 01 0904 00 000000 00200080".replace(" ", ""))
CHANGE_PAD = bytes.fromhex("01 00 82 04 00 00 00 0806 03 02 03 0904 00 01 02 000000 00240080".replace(" ", ""))


@pytest.mark.parametrize(
    ("data", "status", "event"),
    [
        (VERIFY_PAD, "9000", PinVerification(outcome=PinOutcome.ACCEPTED)),
        (VERIFY_PAD, "63C1", PinVerification(outcome=PinOutcome.REFUSED, tries_left=1)),
        (VERIFY_PAD, "6401", PinVerification(outcome=PinOutcome.DECLINED)),
        (VERIFY_PAD, "", PinVerification(outcome=PinOutcome.UNKNOWN)),
        (CHANGE_PAD, "9000", PinChange(outcome=Outcome.OK)),
        (VERIFY_PAD[:15] + bytes.fromhex("00470080"), "9000", Unproven(reason=Blind.PIN_PAD)),
        (b"\x02" + VERIFY_PAD[1:], "9000", Unproven(reason=Blind.PIN_PAD)),
        (b"", "9000", Unproven(reason=Blind.PIN_PAD)),
    ],
)
def test_pins_from_the_readers_own_keys(data: bytes, status: str, event: object) -> None:
    wire = Wire(Reader(SHORT, lambda _: b""), level=SHORT)
    wire.watch.command(message(0x69, 1, data))

    assert wire.watch.answer(data_block(1, bytes.fromhex(status))) == (event,)


def test_a_pin_pads_command_in_parts_is_not_read() -> None:
    wire = Wire(Reader(SHORT, lambda _: b""), level=SHORT)
    wire.watch.command(message(0x69, 1, VERIFY_PAD, level=1))

    assert wire.watch.answer(data_block(1, b"\x90\x00")) == (Unproven(reason=Blind.PIN_PAD),)


def test_a_host_that_does_not_wait_makes_it_unproven(station: Station) -> None:
    wire = Wire(Reader(SHORT, station.transmit), level=SHORT)
    run(ApduDriver(wire).transmit, [SELECT, QUESTION])
    wire.watch.command(message(0x6F, 1, sign_ec()))

    assert wire.watch.command(message(0x6F, 2, SELECT)).events == (
        Unproven(reason=Blind.OVERLAP),
        PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.UNKNOWN),
    )
    assert wire.watch.answer(data_block(1, b"\x90\x00")) == (Unproven(reason=Blind.UNMATCHED_ANSWER),)


def test_slots_that_the_reader_does_not_have() -> None:
    wire = Wire(Reader(SHORT, lambda _: b""), level=SHORT)

    assert wire.watch.command(message(0x6F, 1, SELECT, slot=1)).events == (Unproven(reason=Blind.SLOT),)


def test_the_audit_is_told_of_other_traffic() -> None:
    watch = CardWatch(None, packet_bytes=64, rules=LeaseRules())

    assert watch.unseen(Blind.OTHER_TRAFFIC) == (Unproven(reason=Blind.OTHER_TRAFFIC),)
    assert watch.unseen(Blind.OTHER_TRAFFIC) == ()
