# SPDX-License-Identifier: Apache-2.0
"""The lab's PIV card by itself: what a test double must not get wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.piv.apdu import Answer, Command, MalformedCommandError
from lab.piv.card import PivCard
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.tlv import MalformedTlvError, decode, encode

SELECT = bytes.fromhex("00A4040009A0000003080000100000")
ASK_TRIES = bytes.fromhex("00200080")
LOG_OUT = bytes.fromhex("0020FF80")
DIGEST_TEMPLATE = encode(0x7C, encode(0x82), encode(0x81, bytes(32)))


class OpenGate:
    def before(self, command: Command) -> Answer | None:
        return None

    def after(self, command: Command, answer: Answer) -> Answer:
        return answer


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {0x9A: "p256", 0x9C: "p256"})


@pytest.fixture
def card(keys: dict[int, CardKey]) -> PivCard:
    fresh = PivCard(keys, pin="731946", gate=OpenGate())
    assert fresh.transmit(SELECT)[-2:] == b"\x90\x00"
    return fresh


def verify(pin: bytes) -> bytes:
    return bytes.fromhex("0020008008") + pin.ljust(8, b"\xff")


def sign(slot: int) -> bytes:
    return bytes((0x00, 0x87, 0x11, slot, len(DIGEST_TEMPLATE))) + DIGEST_TEMPLATE + b"\x00"


def status(card: PivCard, raw: bytes) -> int:
    return int.from_bytes(card.transmit(raw)[-2:], "big")


@given(
    tag=st.sampled_from([0x53, 0x7C, 0x5C, 0x5FC105, 0x7F49, 0x93]),
    value=st.binary(max_size=70_000).filter(lambda value: len(value) < 65_536),
)
def test_data_objects_are_read_as_they_were_written(tag: int, value: bytes) -> None:
    assert decode(encode(tag, value) + encode(0xFE)) == {tag: value, 0xFE: b""}


@given(data=st.binary(max_size=40))
def test_bytes_that_are_no_data_objects_are_refused_and_nothing_worse(data: bytes) -> None:
    try:
        decode(data)
    except MalformedTlvError:
        return


@pytest.mark.parametrize(
    ("body", "data", "expected_bytes"),
    [
        ("", "", 256),
        ("10", "", 16),
        ("00", "", 256),
        ("02AABB", "AABB", 256),
        ("02AABB05", "AABB", 5),
        ("000100", "", 256),
        ("000000", "", 65536),
        ("000002AABB", "AABB", 65536),
        ("000002AABB0100", "AABB", 256),
    ],
)
def test_all_cases_of_a_command_are_read(body: str, data: str, expected_bytes: int) -> None:
    command = Command.decode(bytes.fromhex("00CB3FFF" + body))

    assert (command.data.hex().upper(), command.expected_bytes) == (data, expected_bytes)


@pytest.mark.parametrize("body", ["02AA", "02AABB0000", "000003AABB", "000002AABB01"])
def test_lengths_that_do_not_fit_are_refused(body: str) -> None:
    with pytest.raises(MalformedCommandError):
        Command.decode(bytes.fromhex("00CB3FFF" + body))


def test_the_pin_locks_after_three_wrong_ones_and_a_right_one_resets_the_count(card: PivCard) -> None:
    statuses = [status(card, verify(pin)) for pin in (b"000000", b"000000", b"731946", b"000000")]
    assert statuses == [0x63C2, 0x63C1, 0x9000, 0x63C2]
    assert status(card, ASK_TRIES) == 0x63C2

    assert [status(card, verify(b"000000")) for _ in range(2)] == [0x63C1, 0x6983]
    assert status(card, verify(b"731946")) == 0x6983
    card.reset()
    card.transmit(SELECT)
    assert status(card, ASK_TRIES) == 0x6983
    assert (card.pins_judged, card.pins_refused) == (6, 5)


def test_9c_wants_the_pin_for_each_operation_and_9a_once(card: PivCard) -> None:
    assert status(card, sign(0x9A)) == 0x6982
    card.transmit(verify(b"731946"))

    assert [status(card, sign(slot)) for slot in (0x9A, 0x9C, 0x9C, 0x9A)] == [0x9000, 0x9000, 0x6982, 0x9000]
    assert status(card, LOG_OUT) == 0x9000
    assert status(card, sign(0x9A)) == 0x6982
    assert card.operations == 3


def test_a_reset_forgets_the_pin_and_keeps_the_counter(card: PivCard) -> None:
    card.transmit(verify(b"731946"))
    card.transmit(sign(0x9A))

    card.reset()

    assert status(card, sign(0x9A)) == 0x6D00, "not selected"
    card.transmit(SELECT)
    assert status(card, sign(0x9A)) == 0x6982
    assert card.transmit(bytes.fromhex("00CA009300")) == bytes.fromhex("0000019000")


def test_a_command_in_parts_is_one_command_and_a_long_answer_comes_in_parts(
    card: PivCard, keys: dict[int, CardKey]
) -> None:
    card.transmit(verify(b"731946"))
    assert status(card, bytes.fromhex("1087119A0A") + DIGEST_TEMPLATE[:10]) == 0x9000
    rest = DIGEST_TEMPLATE[10:]
    assert status(card, bytes((0x00, 0x87, 0x11, 0x9A, len(rest))) + rest) == 0x9000
    assert card.operations == 1

    part = card.transmit(bytes.fromhex("00CB3FFF055C035FC10500"))
    whole = part[:-2]
    while part[-2] == 0x61:
        part = card.transmit(bytes.fromhex("00C00000") + part[-1:])
        whole += part[:-2]
    assert decode(decode(whole)[0x53])[0x70] == keys[0x9A].certificate


def test_the_secure_messaging_look_alike_hides_the_status_and_works_if_turned_on_only(card: PivCard) -> None:
    data = encode(0x81, verify(b"000000")[5:]) + encode(0x8E, bytes(8))
    secure_verify = bytes((0x0C, 0x20, 0x00, 0x80, len(data))) + data
    assert card.transmit(secure_verify) == b"\x68\x82"
    assert card.pins_judged == 0

    card.has_secure_frames = True

    assert card.transmit(secure_verify) == encode(0x99, b"\x63\xc2") + encode(0x8E, bytes(8)) + b"\x90\x00"
    assert card.pins_refused == 1
