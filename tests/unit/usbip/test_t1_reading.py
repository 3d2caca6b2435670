# SPDX-License-Identifier: Apache-2.0
"""Commands in T=1 blocks count once, however often blocks are sent, damaged or given up."""

from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from card_traces import assert_as_the_card
from lab.piv.keys import CardKey
from lab.piv.station import Station
from lab.piv.tpdu import frame
from piv_script import PIN, QUESTION, SELECT, run, script, sign_ec, sign_rsa, verify
from privyseal.usbip.card_events import (
    Blind,
    KeyUse,
    Outcome,
    PinOutcome,
    PinVerification,
    PrivateKeyOperation,
    Unproven,
)
from t1_host import T1Host
from watched_readers import (
    ATR_BOTH,
    TPDU,
    Reader,
    T1Driver,
    Wire,
    data_block,
    message,
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
    assert_as_the_card(driver.wire.watch.counts, station.state)
    assert driver.wire.watch.counts.unproven == ()


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
        (["002002002A 009000", "002002002A 009000", "0040029E9A 0000029000"], [LOST, SIGNED]),
        # A card that has begun anew, which it did not say: with other numbers, and with the same answer as before.
        ([f"000004{PLAIN} 0000029000", f"004004{OPERATION} 0000029000"], [LOST, SIGNED]),
        ([f"000004{PLAIN} 0000029000", f"000004{OPERATION} 0000029000"], [LOST, SIGNED]),
        ([f"000004{PLAIN} 0000029000", "008000 0000026A80"], [LOST]),
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
    assert_as_the_card(driver.wire.watch.counts, station.state)
    assert driver.wire.watch.counts.unproven == ()
    assert station.state.operations == 2


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


def test_a_pin_pads_command_has_the_next_number_of_t1(station: Station) -> None:
    """The reader makes that block, and gives the card's."""
    driver = T1Driver(station.transmit)
    run(driver.transmit, [SELECT])
    driver.wire.watch.command(message(0x69, 200, bytes(15) + QUESTION))
    block = driver.card.block(frame(0x40, verify(PIN), crc=False))
    told = driver.wire.watch.answer(data_block(200, block))
    driver.host._own ^= 1
    driver.host._expected ^= 1
    run(driver.transmit, [sign_ec()])

    assert told == (PinVerification(outcome=PinOutcome.ACCEPTED),)
    assert driver.wire.events == [PrivateKeyOperation(use=KeyUse.AUTHENTICATE, outcome=Outcome.OK)]
    assert station.state.operations == 1
