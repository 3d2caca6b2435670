# SPDX-License-Identifier: Apache-2.0
"""OpenSC's own commands through audited readers: what is counted is what the card counted."""

from collections.abc import Iterator

import pytest

from card_calls import ALWAYS_ID, RELEASE_ID
from card_traces import assert_as_the_card, replay, traced
from lab.card_lab import PIN, WRONG_PIN, CardLab, card_lab
from lab.piv.apdu import Ins
from lab.piv.orders import State
from privyseal.usbip.card_events import Blind, Forward, LeaseRules
from privyseal.usbip.card_watch import CardWatch
from privyseal.usbip.ccid import read_class_descriptor
from watched_readers import LEVELS, TPDU, class_descriptor

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module", params=["rsa2048", "p256"])
def lab(request: pytest.FixtureRequest) -> Iterator[CardLab]:
    """A card with a key of this kind in 9A and one of the other kind in 9C."""
    other = {"rsa2048": "p256", "p256": "rsa2048"}[request.param]
    with card_lab(layout={0x9A: request.param, 0x9C: other}, is_recorded=True) as started:
        yield started


def sign(lab: CardLab, key_id: bytes, slot: int, pin: bytes) -> None:
    (lab.directory / "digest").write_bytes(bytes(32))
    lab.pkcs11_tool(
        *("--login", "--pin", pin.decode(), "--sign", "--id", key_id.hex()),
        *("--mechanism", "ECDSA" if lab.kind(slot) == "p256" else "RSA-PKCS"),
        *("--input-file", str(lab.directory / "digest"), "--output-file", str(lab.directory / "signature")),
    )


def work(lab: CardLab) -> State:
    """Three operations and a wrong PIN, by programs that we did not write; the card's own counts."""
    for _ in range(2):
        sign(lab, RELEASE_ID, 0x9A, PIN)
    sign(lab, ALWAYS_ID, 0x9C, PIN)
    with pytest.raises(AssertionError, match="CKR_PIN_INCORRECT"):
        sign(lab, RELEASE_ID, 0x9A, WRONG_PIN)
    state = lab.card.state
    assert (state.operations, state.pins_refused) == (3, 1)
    return state


def test_what_opensc_does_counts_as_the_card_counts_it(lab: CardLab) -> None:
    state = work(lab)

    trace = traced(lab.record.read_text())
    assert len(trace) > 100
    for level in LEVELS:
        counts = replay(trace, level).counts
        assert_as_the_card(counts, state)
        assert counts.total("private-key-operation") == state.operations
        assert counts.unproven == ()


@pytest.mark.parametrize(
    "options",
    [("--protocol", "0"), ("--protocol", "1"), ("--protocol", "1", "--damage", "7")],
    ids=["T=0", "T=1", "T=1, damaged"],
)
def test_what_libccid_sends_a_card_in_blocks_counts_as_the_card_counts_it(options: tuple[str, ...]) -> None:
    """Its driver for serial readers, whose CCID messages are the same: it speaks T=0 and T=1 itself."""
    with card_lab(layout={0x9A: "rsa2048", 0x9C: "p256"}, twin=options) as lab:
        state = work(lab)
        messages = traced(lab.reader_record.read_text())

    assert len(messages) > 150
    asked_again = [command for command, _ in messages if command[0] == 0x6F and command[11] & 0xCF in (0x81, 0x82)]
    assert bool(asked_again) == ("--damage" in options)
    for rules in (LeaseRules(), LeaseRules(refuse_key_generation=True, max_private_key_operations=4)):
        descriptor = read_class_descriptor(class_descriptor(TPDU, max_message_bytes=271))
        watch = CardWatch(descriptor, packet_bytes=64, rules=rules)
        for command, answer in messages:
            assert isinstance(watch.command(command), Forward)
            watch.answer(answer)
        watch.finish()
        assert_as_the_card(watch.counts, state)
        assert watch.counts.total("private-key-operation") == state.operations
        # The driver asks for the reader's firmware.
        assert watch.counts.unproven == (Blind.READER_COMMAND,)


def test_libccid_and_opensc_take_a_refusal_for_the_cards_own() -> None:
    with card_lab(layout={0x9A: "p256"}, twin=("--protocol", "0", "--no-operations")) as lab:
        with pytest.raises(AssertionError, match="CKR_USER_NOT_LOGGED_IN"):
            sign(lab, RELEASE_ID, 0x9A, PIN)
        lab.pkcs11_tool("--list-objects", "--type", "cert")
        state = lab.card.state

    assert state.operations == 0
    assert Ins.GENERAL_AUTHENTICATE not in [command.ins for command in state.commands]
