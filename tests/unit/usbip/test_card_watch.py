# SPDX-License-Identifier: Apache-2.0
"""What the audit counts is what the card itself counted, on readers of every level."""

import pytest

from card_traces import assert_as_the_card
from lab.piv.apdu import Ins
from lab.piv.orders import Fault, Set
from lab.piv.station import CardGoneError, Station
from lab.piv.tlv import encode
from piv_script import PIN, SELECT, WRONG_PIN, Transmit, run, script, sign_ec, sign_rsa, verify
from privyseal.usbip.card_events import (
    KeyUse,
    Outcome,
    PinOutcome,
    PinVerification,
    PrivateKeyOperation,
    Tally,
)
from watched_readers import (
    LEVELS,
    SHORT,
    ApduDriver,
    Reader,
    Wire,
    data_block,
    message,
    started,
)


@pytest.mark.parametrize(
    ("level", "chained"),
    # Short APDUs and T=0 have no long commands but in links.
    [(level, chained) for level in LEVELS for chained in (False, True) if chained or level not in ("short", "t0")],
)
def test_it_counts_what_the_card_counts(*, level: str, chained: bool, station: Station) -> None:
    transmit, watch = started(level, station.transmit)

    ended = run(transmit, script(chained=chained))

    links = [0x9000] if chained else []
    assert ended == [
        *(0x9000, 0x63C3, *links, 0x6982, 0x63C2, 0x9000),
        *(*links, 0x9000, *links, 0x9000, 0x9000, 0x9000, 0x9000),
    ]
    watch.finish()
    counts = watch.counts
    assert station.state.operations == 4
    assert_as_the_card(counts, station.state)
    assert counts.unproven == ()
    assert counts.tallies == (
        Tally(what="pin-verification", kind="", outcome="accepted", count=2),
        Tally(what="pin-verification", kind="", outcome="question", count=1),
        Tally(what="pin-verification", kind="", outcome="refused", count=1),
        Tally(what="private-key-operation", kind="authenticate", outcome="ok", count=4),
        Tally(what="private-key-operation", kind="authenticate", outcome="refused", count=1),
    )


@pytest.mark.parametrize("level", LEVELS)
def test_an_operation_whose_answer_never_came_is_of_unknown_outcome(level: str, station: Station) -> None:
    transmit, watch = started(level, station.transmit)
    run(transmit, [SELECT, verify(PIN)])
    station.obey(Set(faults=(Fault(ins=Ins.GENERAL_AUTHENTICATE, act="answer", sw=0x6F00, after=True),)))
    run(transmit, [*sign_rsa(chained=True)[:-1], *sign_rsa(chained=True)[-1:]])

    assert station.state.operations == 1
    assert watch.counts.total("private-key-operation", "unknown") == 1
    assert watch.counts.total("private-key-operation") == 1


def gone(station: Station) -> Transmit:
    """The card's answers; none once it has left."""

    def transmit(apdu: bytes) -> bytes:
        try:
            return station.transmit(apdu)
        except CardGoneError:
            return b""

    return transmit


def test_a_card_that_leaves_in_an_operation(station: Station) -> None:
    answers = gone(station)
    wire = Wire(Reader(SHORT, lambda apdu: answers(apdu) or None), level=SHORT)
    transmit = ApduDriver(wire).transmit
    run(transmit, [SELECT, verify(PIN)])
    station.obey(Set(faults=(Fault(ins=Ins.GENERAL_AUTHENTICATE, act="leave", after=True),)))

    transmit(sign_rsa(chained=True)[0])
    transmit(sign_rsa(chained=True)[1])

    assert station.state.operations == 1
    assert wire.events[-1] == PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.UNKNOWN)


def test_what_is_under_way_when_the_lease_ends(station: Station) -> None:
    transmit, watch = started("short", station.transmit)
    run(transmit, [SELECT])
    watch.command(message(0x6F, 200, sign_ec()))

    assert watch.finish() == (PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.UNKNOWN),)
    assert watch.finish() == ()


def test_the_tries_left_are_told(station: Station) -> None:
    too_short = bytes.fromhex("002000800431313131")
    wire = Wire(Reader(SHORT, station.transmit), level=SHORT)
    run(ApduDriver(wire).transmit, [SELECT, too_short, *[verify(WRONG_PIN)] * 4])

    outcomes = [(event.outcome, event.tries_left) for event in wire.events if isinstance(event, PinVerification)]
    assert outcomes == [
        (PinOutcome.DECLINED, None),
        *((PinOutcome.REFUSED, 2), (PinOutcome.REFUSED, 1), (PinOutcome.REFUSED, 0), (PinOutcome.REFUSED, 0)),
    ]


def test_under_secure_messaging_operations_count_and_nobody_knows_how_they_ended(station: Station) -> None:
    station.obey(Set(secure_frames=True))
    transmit, watch = started("extended", station.transmit)
    run(transmit, [SELECT])

    def framed(ins: int, p1: int, p2: int, data: bytes) -> bytes:
        inner = encode(0x81, data) + encode(0x8E, bytes(8))
        return bytes((0x0C, ins, p1, p2, len(inner))) + inner + b"\0"

    sign = encode(0x7C, encode(0x82), encode(0x81, bytes(32)))
    ended = run(
        transmit,
        [
            framed(0x20, 0x00, 0x80, PIN.ljust(8, b"\xff")),
            framed(0x87, 0x11, 0x9C, sign),
            framed(0x87, 0x11, 0x9C, sign),
        ],
    )

    assert ended == [0x9000] * 3
    assert station.state.operations == 1, "the second one was refused, under an outer 9000"
    assert watch.counts.total("private-key-operation", "unknown") == 2
    assert watch.counts.total("pin-verification", "unknown") == 1
    assert watch.counts.unproven == ()


def test_more_time_is_no_answer(station: Station) -> None:
    wire = Wire(Reader(SHORT, station.transmit), level=SHORT)
    run(ApduDriver(wire).transmit, [SELECT, verify(PIN)])
    wire.watch.command(message(0x6F, 99, sign_ec()))

    assert wire.watch.answer(data_block(99, status=0x80, error=5)) == ()
    assert wire.watch.answer(data_block(99, b"\x90\x00")) == (
        PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.OK),
    )


@pytest.mark.parametrize(("kind", "answer"), [(0x63, 0x81), (0x62, 0x80), (0x72, 0x81)])
def test_a_command_ends_unanswered_with_power_or_abort(kind: int, answer: int, station: Station) -> None:
    wire = Wire(Reader(SHORT, station.transmit), level=SHORT)
    wire.watch.command(message(0x6F, 1, sign_ec()))
    wire.watch.command(message(kind, 2))

    assert wire.watch.answer(message(answer, 2)) == (
        PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.UNKNOWN),
    )
    assert wire.watch.finish() == ()


@pytest.mark.parametrize(("error", "outcome"), [(0xE0, Outcome.REFUSED), (0xFE, Outcome.UNKNOWN)])
def test_errors_of_the_reader(error: int, outcome: Outcome) -> None:
    wire = Wire(Reader(SHORT, lambda _: b""), level=SHORT)
    wire.watch.command(message(0x6F, 1, sign_ec()))

    assert wire.watch.answer(data_block(1, status=0x40, error=error)) == (
        PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=outcome),
    )


def test_a_command_given_again_with_the_right_le_counts_once() -> None:
    answers = iter(("6C48", "9000"))
    wire = Wire(Reader(SHORT, lambda _: bytes.fromhex(next(answers))), level=SHORT)
    run(ApduDriver(wire).transmit, [sign_ec(), sign_ec()])

    assert wire.events == [PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.OK)]
    assert wire.watch.counts.apdus == 1


def test_channels_have_chains_of_their_own(station: Station) -> None:
    """A link on another logical channel does not join."""
    answer = lambda apdu: b"\x90\x00" if apdu[0] & 0x10 else b"\x61\x10"  # noqa: E731
    wire = Wire(Reader(SHORT, answer), level=SHORT)
    transmit = ApduDriver(wire).transmit
    first, last = sign_rsa(chained=True)
    for apdu in (first, bytes((0x11,)) + first[1:], last, bytes((0x01,)) + last[1:]):
        transmit(apdu)

    assert wire.watch.counts.total("private-key-operation", "ok") == 2
    assert wire.watch.counts.apdus == 2


def test_links_with_other_headers_are_counted_in_doubt() -> None:
    """A card may go by the first link's key reference."""
    wire = Wire(Reader(SHORT, lambda _: b"\x90\x00"), level=SHORT)
    transmit = ApduDriver(wire).transmit
    transmit(bytes.fromhex("1087039C027C02"))
    transmit(bytes.fromhex("0087039B028100"))

    assert wire.events == [PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.OK)]


def test_power_ends_chains() -> None:
    wire = Wire(Reader(SHORT, lambda _: b"\x90\x00"), level=SHORT)
    transmit = ApduDriver(wire).transmit
    transmit(bytes.fromhex("1087039C027C02"))
    wire.power_on()
    transmit(bytes.fromhex("0087039C047C028100"))

    assert wire.events == [], "a question for a challenge, whole"


def test_power_ends_what_waits_for_get_response() -> None:
    wire = Wire(Reader(SHORT, lambda _: b"\x61\x10"), level=SHORT)
    transmit = ApduDriver(wire).transmit
    transmit(SELECT)
    wire.power_on()
    transmit(bytes.fromhex("00C0000010"))

    assert wire.watch.counts.apdus == 2


def test_a_link_that_the_card_answers_at_once_counts() -> None:
    """A card that does not know command chaining takes each link for the whole command."""
    wire = Wire(Reader(SHORT, lambda _: bytes(64) + b"\x90\x00"), level=SHORT)
    ApduDriver(wire).transmit(bytes.fromhex("102A9E9A2000") + bytes(31))

    assert wire.events == [PrivateKeyOperation(use=KeyUse.SIGN, outcome=Outcome.OK)]
