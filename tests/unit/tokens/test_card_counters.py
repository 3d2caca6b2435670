# SPDX-License-Identifier: Apache-2.0
"""Counters out of what cards answer, command by command; and which reader a module means by its slot."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import ConfigError, TokenError
from privyseal.pki.der import encode_tlv
from privyseal.ports.token import KeyCounter
from privyseal.tokens.card_side import choose_reader
from privyseal.tokens.config import TokenConfig
from privyseal.tokens.counters import CounterKind, read_counters
from privyseal.tokens.pcsc import Answer
from privyseal.tokens.pcsc_clients import connected, own_connections

OPENPGP_SELECT = "00a4040006d2760001240100"
SC_HSM_SELECT = "00a404040be82b0601040181c31f020100"


class Table:
    """A card as a table of commands and answers; it forgets its application once it is asked for something else."""

    def __init__(self, answers: Mapping[str, str], *, selected_by: str = "") -> None:
        self._answers = answers
        self._selected_by = selected_by
        self._is_selected = not selected_by
        self.asked: list[str] = []

    def ask(self, command: bytes) -> Answer:
        text = command.hex()
        self.asked.append(text)
        if text == self._selected_by:
            self._is_selected = True
            return Answer(data=b"", sw=0x9000)
        answer = bytes.fromhex(self._answers.get(text, "6a82") if self._is_selected else "6d00")
        return Answer(data=answer[:-2], sw=int.from_bytes(answer[-2:], "big"))


def test_an_openpgp_card_shows_its_counter_in_the_security_support_template() -> None:
    card = Table({"00ca007a00": "7a0593 03 0002a1 9000"})

    assert read_counters(card, "openpgp") == (KeyCounter(key_id=b"\x01", count=0x2A1, source="OpenPGP card, DO 93"),)
    assert card.asked == ["00ca007a00"], "what the module has selected stays selected"


def test_an_openpgp_card_may_show_the_counter_alone() -> None:
    (counter,) = read_counters(Table({"00ca009300": "00ffff 9000"}), "openpgp")

    assert counter.count == 0xFFFF


def test_the_application_is_selected_only_if_it_is_not() -> None:
    card = Table({"00ca007a00": "7a059303000007 9000"}, selected_by=OPENPGP_SELECT)

    (counter,) = read_counters(card, "openpgp")

    assert counter.count == 7
    assert card.asked == ["00ca007a00", "00ca009300", OPENPGP_SELECT, "00ca007a00"]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({}, id="no counter"),
        pytest.param({"00ca007a00": "7a0493020007 9000"}, id="two bytes"),
        pytest.param({"00ca009300": "93030000079000"}, id="five bytes"),
        pytest.param({"00ca007a00": "7b059303000007 9000"}, id="another template"),
        pytest.param({"00ca007a00": "7a099303000007 9000"}, id="cut off"),
        pytest.param({"00ca007a00": "9000"}, id="nothing"),
    ],
)
def test_what_is_no_counter_is_not_taken_for_one(answers: Mapping[str, str]) -> None:
    with pytest.raises(TokenError) as caught:
        read_counters(Table(answers), "openpgp")

    assert caught.value.code == "token.counter"


#: Key 1 has 0xFFFFFFF0 uses left, key 2 was made without a counter; 0 is the device's own.
SC_HSM = {
    "80580000000000": "cc00 cc01 c401 ce01 cc02 c402 9000",
    "00a4000002cc0100": "6213 8102 0100 8201 01 8302 cc01 a506 9004 fffffff0 9000",
    "00a4000002cc0200": "620b 8102 0100 8201 01 8302 cc02 9000",
    "00b1c40104540200 0000".replace(" ", ""): "300e 3005 0c03 6b6579 3005 0403 0a0b0c 9000",
}


def test_a_smartcard_hsm_counts_down_for_each_key_that_has_a_counter() -> None:
    for card in (Table(SC_HSM), Table(SC_HSM, selected_by=SC_HSM_SELECT)):
        assert read_counters(card, "smartcard-hsm") == (
            KeyCounter(key_id=b"\x0a\x0b\x0c", count=15, source="SmartCard-HSM, key use counter"),
        )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"80580000000000": "9000"}, "none of the card's 0 keys"),
        ({"80580000000000": "cc02 9000"}, "none of the card's 1 keys"),
        ({"80580000000000": "6d00"}, "lists no files"),
        ({"00b1c401045402000000": "6a82"}, "description of key 1"),
        ({"00b1c401045402000000": "3007 3005 0c03 6b6579 9000"}, "no identifier"),
        ({"00a4000002cc0100": "6f00 9000"}, "tag 6F"),
    ],
)
def test_a_smartcard_hsm_without_a_counter_is_named(changes: Mapping[str, str], why: str) -> None:
    with pytest.raises(TokenError, match=why) as caught:
        read_counters(Table({**SC_HSM, **changes}), "smartcard-hsm")

    assert caught.value.code == "token.counter"


class Hostile:
    """A card that answers whatever it likes, for some commands' worth."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = answers

    def ask(self, command: bytes) -> Answer:
        return self._answers.pop() if self._answers else Answer(data=b"", sw=0x6F00)


TLVS = st.recursive(
    st.binary(max_size=8),
    lambda inner: st.builds(
        lambda tag, parts: encode_tlv(tag, b"".join(parts)),
        st.sampled_from([0x04, 0x30, 0x62, 0x7A, 0x90, 0x93, 0xA5]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)
FILES = st.just(bytes.fromhex("cc00cc01cc02"))


@given(
    st.lists(st.builds(Answer, data=TLVS | FILES, sw=st.sampled_from([0x9000, 0x9000, 0x6A82])), max_size=8),
    st.sampled_from(get_args(CounterKind)),
)
def test_no_answer_is_more_than_a_counter_or_an_error(answers: list[Answer], kind: CounterKind) -> None:
    code, counts = "token.counter", [0]
    try:
        counts = [counter.count for counter in read_counters(Hostile(answers), kind)]
    except TokenError as error:
        code = error.code

    assert code == "token.counter"
    assert all(0 <= count < 2**32 for count in counts)


def test_none_asks_nothing() -> None:
    card = Table({})

    assert read_counters(card, "none") == ()
    assert card.asked == []


LONG = "A reader whose name is far longer than the 64 bytes of a slot's description 00 00"


@pytest.mark.parametrize(
    ("readers", "slot", "chosen"),
    [
        (("One 00 00", "Two 01 00"), "Two 01 00", "Two 01 00"),
        (("One 00 00",), "Token slot 0", "One 00 00"),
        (("One 00 00", LONG), LONG[:64].rstrip(), LONG),
    ],
)
def test_the_reader_is_the_one_of_the_slots_name_or_the_only_one(
    readers: tuple[str, ...], slot: str, chosen: str
) -> None:
    assert choose_reader(readers, slot) == chosen


@pytest.mark.parametrize("readers", [(), ("One 00 00", "Two 01 00"), ("Twin", "Twin")])
def test_a_reader_is_never_guessed(readers: tuple[str, ...]) -> None:
    with pytest.raises(TokenError) as caught:
        choose_reader(readers, "Twin")

    assert caught.value.code == "token.reader"


def test_a_software_token_can_be_given_no_counter() -> None:
    config = TokenConfig(name="soft", kind="software", path="/token", journal="/journal")

    with pytest.raises(ConfigError, match="prove nothing"):
        replace(config, counter="openpgp")


TABLE = """\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 11 /run/pcscd/pcscd.comm
0000000000000000: 00000003 00000000 00000000 0001 03 12 /run/pcscd/pcscd.comm
0000000000000000: 00000003 00000000 00000000 0001 03 13
0000000000000000: 00000003 00000000 00000000 0001 03 14 /run/pcscd/pcscd.comm
0000000000000000: 00000003 00000000 00000000 0001 03 15 /run/other pcscd/pcscd.comm
0000000000000000: 00000003 00000000 00000000 0001 03 16 /run/dbus/system_bus_socket
"""


def test_connections_are_those_of_pcscds_name(tmp_path: Path) -> None:
    table = tmp_path / "unix"
    table.write_text(TABLE)

    assert connected(frozenset(("/run/pcscd/pcscd.comm",)), table) == 2
    assert connected(frozenset(("/run/other pcscd/pcscd.comm",)), table) == 1
    assert connected(frozenset(), table) == 0
    assert own_connections() == {}
