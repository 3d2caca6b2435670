# SPDX-License-Identifier: Apache-2.0
"""What the audit counts is what the card itself counted, on readers of every level; and what it cannot see it says."""

from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.piv.apdu import Ins
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.orders import Fault, Set
from lab.piv.station import CardGoneError, Station
from lab.piv.tlv import encode
from lab.piv.tpdu import frame
from piv_script import PIN, QUESTION, RSA_SLOT, SELECT, WRONG_PIN, Transmit, run, script, sign_ec, sign_rsa, verify
from privyseal.usbip.card_events import (
    Blind,
    KeyUse,
    LeaseCounts,
    LeaseRules,
    Outcome,
    PinChange,
    PinOutcome,
    PinVerification,
    PrivateKeyOperation,
    Tally,
    Unproven,
)
from privyseal.usbip.card_watch import CardWatch
from t1_host import T1Host
from watched_readers import (
    ATR_BOTH,
    CHARACTER,
    LEVELS,
    SHORT,
    TPDU,
    ApduDriver,
    Reader,
    T1Driver,
    Wire,
    data_block,
    message,
    started,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {0x9A: "rsa2048", 0x9C: "p256"})


@pytest.fixture
def station(keys: dict[int, CardKey]) -> Station:
    return Station(keys, pin=PIN.decode())


def assert_as_the_card(counts: LeaseCounts, station: Station) -> None:
    state = station.state
    assert counts.total("private-key-operation", "ok") == state.operations
    assert counts.total("pin-verification", "accepted", "refused") == state.pins_judged
    assert counts.total("pin-verification", "refused") == state.pins_refused
    assert counts.apdus == len(state.commands)
    assert counts.unproven == ()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("chained", [False, True], ids=["extended", "chained"])
def test_it_counts_what_the_card_counts(*, level: str, chained: bool, station: Station) -> None:
    if level in ("short", "t0") and not chained:
        return  # no such commands there
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
    assert_as_the_card(counts, station)
    assert counts.tallies == (
        Tally(what="pin-verification", kind="", outcome="accepted", count=2),
        Tally(what="pin-verification", kind="", outcome="question", count=1),
        Tally(what="pin-verification", kind="", outcome="refused", count=1),
        Tally(what="private-key-operation", kind="authenticate", outcome="ok", count=4),
        Tally(what="private-key-operation", kind="authenticate", outcome="refused", count=1),
    )


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damaged=st.sets(st.tuples(st.integers(0, 80), st.sampled_from(["to card", "to host", "deaf"])), max_size=30),
    ifs=st.sampled_from([7, 32, 254]),
    slow=st.booleans(),
)
def test_what_is_sent_again_counts_once(
    *,
    keys: dict[int, CardKey],
    damaged: set[tuple[int, str]],
    ifs: int,
    slow: bool,
) -> None:
    station = Station(keys, pin=PIN.decode())

    def at(place: str) -> Callable[[], bool]:
        numbers = count()
        return lambda: (next(numbers), place) in damaged

    driver = T1Driver(
        station.transmit,
        ifs=ifs,
        slow=slow,
        to_card=at("to card"),
        to_host=at("to host"),
        deaf=at("deaf"),
    )

    ended = run(driver.transmit, script(chained=True))

    assert ended[-1] == 0x9000
    assert driver.wire.watch.finish() == ()
    assert_as_the_card(driver.wire.watch.counts, station)


def blocks(*pairs: str) -> Wire:
    """Host's and card's blocks of T=1 in turns; all but their check bytes, `-` for none and `!` for a failure."""
    wire = Wire(Reader(TPDU, lambda _: b""), level=TPDU)
    wire.power_on()
    for sequence, pair in enumerate(pairs, start=10):
        sent, _, received = pair.partition(" ")
        wire.events += wire.watch.command(message(0x6F, sequence, checked(sent))).events
        if received == "!":
            wire.events += wire.watch.answer(data_block(sequence, status=0x40, error=0xFE))
        elif received != "-":
            wire.events += wire.watch.answer(data_block(sequence, checked(received)))
    return wire


def checked(block: str) -> bytes:
    raw = bytes.fromhex(block)
    return frame(raw[1], raw[3:], crc=False)


#: A private-key operation, and a plain command.
OPERATION, PLAIN = "002A9E9A", "00A40000"
SIGNED = PrivateKeyOperation(use=KeyUse.SIGN, outcome=Outcome.OK)
PERHAPS_SIGNED = PrivateKeyOperation(use=KeyUse.SIGN, outcome=Outcome.UNKNOWN)
LOST = Unproven(reason=Blind.T1_SEQUENCE)


@pytest.mark.parametrize(
    ("pairs", "events"),
    [
        ([f"000004{OPERATION} 0000029000"], [SIGNED]),
        # Not taken by the card, and something else in its place.
        ([f"000004{OPERATION} 008100", f"000004{PLAIN} 0000029000"], []),
        # Perhaps taken by the card.
        ([f"000004{OPERATION} !", f"000004{PLAIN} 0000029000"], [PERHAPS_SIGNED, LOST]),
        ([f"000004{OPERATION} !", f"000004{OPERATION} 0000029000"], [SIGNED]),
        # An answer that the host asks for once more.
        ([f"000004{OPERATION} 0000029000", "008000 0000029000", f"004004{OPERATION} 0040029000"], [SIGNED, SIGNED]),
        # A card that does not care for the host's numbers, and one that answers what nobody asked.
        ([f"004004{OPERATION} 0000029000"], [LOST, SIGNED]),
        (["008000 0000029000"], [LOST]),
        ([f"002004{OPERATION} 0000029000"], [LOST, SIGNED]),
        # Given up by both sides in the middle, and all numbers begin again.
        ([f"000004{PLAIN} 0000029000", "00C000 00E000", f"000004{OPERATION} 0000029000"], [SIGNED]),
        ([f"000004{OPERATION} 00C30101", "00C000 00E000"], [PERHAPS_SIGNED]),
        # A part that is sent again though the card acknowledged it.
        (["002002002A 009000", "002002002A 009000", "0040029E9A 0000029000"], [SIGNED]),
        # A chain that the card gives up, and the whole command after it.
        ([f"002002{OPERATION[:4]} 009000", "0040029E9A 00C200", "00E200 -"], [PERHAPS_SIGNED]),
        (["00E200 -"], [Unproven(reason=Blind.CHAINING)]),
        # A card that gives its answer in two blocks.
        ([f"000004{OPERATION} 00200190", "009000 00400100"], [SIGNED]),
    ],
)
def test_blocks_in_their_order(pairs: list[str], events: list[object]) -> None:
    assert blocks(*pairs).events == events


def test_blocks_that_no_side_counts_as_commands(station: Station) -> None:
    driver = T1Driver(station.transmit, ifs=32)
    assert driver.host.supervise(0xC1, b"\xfe") == b"\xfe"
    run(driver.transmit, [SELECT, QUESTION, verify(PIN)])
    driver.host.supervise(0xC0)
    run(driver.transmit, [*sign_rsa(chained=True), verify(PIN), sign_ec()])

    assert driver.wire.watch.finish() == ()
    assert_as_the_card(driver.wire.watch.counts, station)
    assert station.state.operations == 2


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


def test_a_protocol_is_agreed_upon_with_the_card(station: Station) -> None:
    """T=0 and T=1 are offered, T=1 is asked for by PPS, and again told to the reader."""
    driver = T1Driver(station.transmit)
    wire = Wire(Reader(TPDU, lambda block: block if block[0] == 0xFF else driver.card.block(block)), level=TPDU)
    wire._reader._atr = ATR_BOTH  # type: ignore[attr-defined]
    wire.power_on()
    assert wire.transfer(bytes.fromhex("FF119678")) == bytes.fromhex("FF119678")
    wire.ask(0x61, bytes.fromhex("9611026500FE00"), own=1)

    run(T1Host(wire.transfer).transmit, [SELECT])
    assert wire.events == []
    assert wire.watch.counts.apdus == 1

    wire.transfer(bytes.fromhex("FF119678"))
    assert wire.events == [Unproven(reason=Blind.T1_BLOCK)], "it is too late for that"
    wire.ask(0x61, own=2)
    assert wire.events[1:] == [Unproven(reason=Blind.PROTOCOL)], "the card did not offer that"


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


def test_a_pin_pads_command_has_the_next_number_of_t1(station: Station) -> None:
    """The reader makes that block; whether the card took the PIN, its block may say, or the reader's own form."""
    driver = T1Driver(station.transmit)
    run(driver.transmit, [SELECT])
    driver.wire.watch.command(message(0x69, 200, VERIFY_PAD))
    block = driver.card.block(frame(0x40, verify(PIN), crc=False))
    told = driver.wire.watch.answer(data_block(200, block))
    driver.host._own ^= 1
    driver.host._expected ^= 1
    run(driver.transmit, [sign_ec()])

    assert told == (PinVerification(outcome=PinOutcome.UNKNOWN),)
    assert driver.wire.events == [PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.OK)]
    assert station.state.operations == 1


def test_a_host_that_does_not_wait_makes_it_unproven(station: Station) -> None:
    wire = Wire(Reader(SHORT, station.transmit), level=SHORT)
    run(ApduDriver(wire).transmit, [SELECT, QUESTION])
    wire.watch.command(message(0x6F, 1, sign_ec()))

    assert wire.watch.command(message(0x6F, 2, SELECT)).events == (
        Unproven(reason=Blind.OVERLAP),
        PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.UNKNOWN),
    )
    assert wire.watch.answer(data_block(1, b"\x90\x00")) == (Unproven(reason=Blind.UNMATCHED_ANSWER),)


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


def test_slots_that_the_reader_does_not_have() -> None:
    wire = Wire(Reader(SHORT, lambda _: b""), level=SHORT)

    assert wire.watch.command(message(0x6F, 1, SELECT, slot=1)).events == (Unproven(reason=Blind.SLOT),)


def test_the_audit_is_told_of_other_traffic() -> None:
    watch = CardWatch(None, packet_bytes=64, rules=LeaseRules())

    assert watch.unseen(Blind.OTHER_TRAFFIC) == (Unproven(reason=Blind.OTHER_TRAFFIC),)
    assert watch.unseen(Blind.OTHER_TRAFFIC) == ()
    assert RSA_SLOT == 0x9A
