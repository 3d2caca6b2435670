# SPDX-License-Identifier: Apache-2.0
"""Commands, answers, blocks and messages one by one, against what their standards say of them."""

import pytest

from lab.piv.apdu import Command as LabCommand
from lab.piv.apdu import MalformedCommandError
from privyseal.usbip.apdu import AnswerTail, Gathering, Head, Shape, template_lengths
from privyseal.usbip.card_commands import TABLE, Act, meaning, outcome, pin_verification
from privyseal.usbip.card_events import Blind, KeyUse, Outcome, PinOutcome
from privyseal.usbip.card_slot import offered_protocols
from privyseal.usbip.ccid import (
    MAX_MESSAGE_BYTES,
    ExchangeLevel,
    Framing,
    FramingFault,
    read_answer,
    read_class_descriptor,
    read_command,
)
from privyseal.usbip.t1 import Supervisory, read_block
from watched_readers import EXTENDED, SHORT, TPDU, class_descriptor, data_block, message


@pytest.mark.parametrize(
    ("apdu", "case", "is_extended", "data_bytes"),
    [
        ("00A40400", 1, False, 0),
        ("00C0000000", 2, False, 0),
        ("00C00000FF", 2, False, 0),
        ("00A4040002AABB", 3, False, 2),
        ("00A4040002AABB00", 4, False, 2),
        ("00CB3FFF000000", 2, True, 0),
        ("00CB3FFF00000000", None, None, None),
        ("00A40400000002AABB", 3, True, 2),
        ("00A40400000002AABB0000", 4, True, 2),
        ("00A40400000002AABB00", None, None, None),
        ("00A4040003AABB", None, None, None),
        ("00A4040001AABBCC", None, None, None),
        ("00A4040000AA", None, None, None),
        ("00A404", None, None, None),
        ("", None, None, None),
    ],
)
def test_the_seven_forms_of_a_command(
    *,
    apdu: str,
    case: int | None,
    is_extended: bool | None,
    data_bytes: int | None,
) -> None:
    raw = bytes.fromhex(apdu)

    shape = Gathering(raw).shape

    told = None if shape is None else (shape.case, shape.is_extended, shape.data_bytes)
    assert told == (None if case is None else (case, is_extended, data_bytes))
    gathered = Gathering()
    for byte in raw:
        gathered.add(bytes((byte,)))
    assert gathered.shape == shape
    if shape is not None:
        assert len(LabCommand.decode(raw).data) == shape.data_bytes


@pytest.mark.parametrize("lc", [1, 2, 127, 255])
@pytest.mark.parametrize("le", [b"", b"\0", b"\x10"])
def test_the_lab_reads_the_same_lengths(lc: int, le: bytes) -> None:
    short = bytes((0, 0xCB, 0, 0, lc)) + bytes(lc) + le
    extended = bytes((0, 0xCB, 0, 0, 0, 0, lc)) + bytes(lc) + 2 * le
    for raw in (short, extended, short + b"xx", extended[:-1]):
        try:
            expected: int | None = len(LabCommand.decode(raw).data)
        except MalformedCommandError:
            expected = None
        shape = Gathering(raw).shape
        assert (None if shape is None else shape.data_bytes) == expected


def test_data_is_kept_of_templates_alone() -> None:
    secret = bytes(range(1, 17))
    verify = Gathering(bytes.fromhex("0020008010") + secret)
    authenticate = Gathering(bytes.fromhex("0087119C10") + secret)

    assert verify.shape == Shape(case=3, is_extended=False, data_at=5, data_bytes=16)
    assert (verify.has_data, verify.template) == (True, None)
    assert bytes(verify._kept) == bytes.fromhex("0020008010")
    assert authenticate.template == secret


@pytest.mark.parametrize(
    ("cla", "interindustry", "chained", "secured", "channel"),
    [
        (0x00, True, False, False, 0),
        (0x13, True, True, False, 3),
        (0x04, True, False, True, 0),
        (0x0D, True, False, True, 1),
        (0x1C, True, True, True, 0),
        (0x40, True, False, False, 4),
        (0x6F, True, False, True, 19),
        (0x7F, True, True, True, 19),
        (0x20, False, False, False, 0),
        (0x80, False, False, False, 0),
        (0x9C, False, False, False, 0),
        (0xFF, False, False, False, 0),
    ],
)
def test_what_a_class_says(
    *,
    cla: int,
    interindustry: bool,
    chained: bool,
    secured: bool,
    channel: int,
) -> None:
    head = Head(cla=cla, ins=0x20, p1=0, p2=0)

    assert (head.is_interindustry, head.is_chained, head.is_secured) == (interindustry, chained, secured)
    if interindustry:
        assert head.channel == channel


@pytest.mark.parametrize(
    ("head", "act", "use"),
    [
        ("002A9E9A", Act.KEY_OPERATION, KeyUse.SIGN),
        ("0C2A9EAC", Act.KEY_OPERATION, KeyUse.SIGN),
        ("002A8086", Act.KEY_OPERATION, KeyUse.DECIPHER),
        ("002A00A8", Act.PLAIN, None),
        ("002A8680", Act.PLAIN, None),
        ("002A9E00", Act.BLIND, None),
        ("002241A6", Act.KEY_OPERATION, KeyUse.AGREE),
        ("002241B6", Act.PLAIN, None),
        ("00880000", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
        ("00F99A00", Act.KEY_OPERATION, KeyUse.ATTEST),
        ("00200080", Act.VERIFY, None),
        ("00210080", Act.VERIFY, None),
        ("00240080", Act.PIN_CHANGE, None),
        ("002C0080", Act.PIN_CHANGE, None),
        ("00478000", Act.KEY_GENERATION, None),
        ("0047009A", Act.KEY_GENERATION, None),
        ("00460000", Act.KEY_GENERATION, None),
        ("00478100", Act.PLAIN, None),
        ("00DB3FFF", Act.INITIALISATION, None),
        ("00DA0101", Act.INITIALISATION, None),
        ("00E60000", Act.INITIALISATION, None),
        ("00FE0000", Act.INITIALISATION, None),
        ("00FE119A", Act.INITIALISATION, None),
        ("00C00000", Act.GET_RESPONSE, None),
        ("00A40400", Act.PLAIN, None),
        ("00C20000", Act.BLIND, None),
        ("80CA9F7F", Act.BLIND, None),
        ("FFCA0000", Act.BLIND, None),
        ("00990000", Act.BLIND, None),
    ],
)
def test_what_commands_are(head: str, act: Act, use: KeyUse | None) -> None:
    means = meaning(Gathering(bytes.fromhex(head)).head, None)

    assert (means.act, means.use) == (act, use)
    assert (means.blind is not None) == (act is Act.BLIND)
    assert (means.write is not None) == (act is Act.INITIALISATION)


def test_a_command_without_a_header_is_malformed() -> None:
    assert meaning(None, None).blind is Blind.MALFORMED_COMMAND


def test_every_row_names_its_source_and_can_be_reached() -> None:
    for row in TABLE:
        assert row.source
        heads = [
            Head(cla=0, ins=ins, p1=p1, p2=p2)
            for ins in row.ins
            for p1 in row.p1 or range(256)
            for p2 in row.p2 or (0, 1)
        ]
        assert any(next(one for one in TABLE if one.fits(head)) is row for head in heads)


@pytest.mark.parametrize(
    ("head", "template", "act", "use"),
    [
        # SP 800-73-4 part 2, A.4 and A.5: a signature; a key agreement; A.1 and A.2: the host proves itself.
        ("0087079A", "7C0A82008106112233445566", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
        ("0087119D", "7C0A82008506112233445566", Act.KEY_OPERATION, KeyUse.AGREE),
        ("0087039B", "7C028100", Act.PLAIN, None),
        ("0087039B", "7C0A82081122334455667788", Act.PLAIN, None),
        ("0087039B", "7C028000", Act.PLAIN, None),
        ("0087039B", "7C088002AAAA8102BBBB", Act.PLAIN, None),
        ("0087079B", "7C0481020000", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
        ("0087039C", "7C0481020000", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
        ("0087079C", "7C028100", Act.PLAIN, None),
        ("00870000", "7C0483020000", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
        # What cannot be read may be one.
        ("0087079C", "", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
        ("0087079C", "7C058100", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
        ("0087079C", "7C0281008102AABB", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
        ("0087079C", "7C0681008102AABB", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
        ("0C87039B", "7C028100", Act.KEY_OPERATION, KeyUse.AUTHENTICATE),
    ],
)
def test_the_template_says_what_general_authenticate_is(head: str, template: str, act: Act, use: KeyUse | None) -> None:
    means = meaning(Gathering(bytes.fromhex(head)).head, bytes.fromhex(template))

    assert (means.act, means.use) == (act, use)


def test_lengths_in_templates() -> None:
    long = bytes(300)
    assert template_lengths(b"\x7c\x82\x01\x32\x82\x00\x81\x82\x01\x2c" + long) == {0x82: 0, 0x81: 300}
    assert template_lengths(b"\x7c\x83\x00\x00\x02\x82\x00") is None
    assert template_lengths(b"\x7c\x81") is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((0x9000, Outcome.OK), (0x6105, Outcome.OK), (0x6281, Outcome.OK), (0x63C1, Outcome.OK)),
        *((0x6400, Outcome.REFUSED), (0x6700, Outcome.REFUSED), (0x6982, Outcome.REFUSED), (0x6E00, Outcome.REFUSED)),
        *((0x6581, Outcome.UNKNOWN), (0x6F00, Outcome.UNKNOWN), (0x9001, Outcome.UNKNOWN), (0, Outcome.UNKNOWN)),
    ],
)
def test_what_a_status_says(status: int, expected: Outcome) -> None:
    assert outcome(status) is expected


@pytest.mark.parametrize(
    ("status", "expected", "tries_left"),
    [
        *((0x9000, PinOutcome.ACCEPTED, None), (0x63C5, PinOutcome.REFUSED, 5), (0x63C0, PinOutcome.REFUSED, 0)),
        *((0x6300, PinOutcome.REFUSED, None), (0x6982, PinOutcome.REFUSED, None), (0x6983, PinOutcome.REFUSED, 0)),
        *((0x6A80, PinOutcome.DECLINED, None), (0x6D00, PinOutcome.DECLINED, None), (0x6F00, PinOutcome.UNKNOWN, None)),
    ],
)
def test_what_a_status_says_of_a_pin(status: int, expected: PinOutcome, tries_left: int | None) -> None:
    told = pin_verification(status)

    assert told.outcome is expected
    assert told.tries_left == tries_left


def test_an_answers_end() -> None:
    tail = AnswerTail()
    told = [tail.status]
    for part in (b"\x11\x22", b"", b"\x90", b"\x00"):
        tail.add(part)
        told.append(tail.status)

    assert (told, tail.data_bytes) == ([None, 0x1122, 0x1122, 0x2290, 0x9000], 2)


@pytest.mark.parametrize(
    ("atr", "protocols"),
    [
        ("3B6000", (0,)),
        ("3BD518FF8191FE1FC38073C8211008", (1,)),
        ("3BD596028071FE65014F734549445E", (0, 1)),
        ("3B80800101", (0, 1)),
        ("3B800F", (0,)),
        ("3B80", (0,)),
        ("3BF0", (0,)),
        ("", (0,)),
    ],
)
def test_protocols_that_an_answer_to_reset_offers(atr: str, protocols: tuple[int, ...]) -> None:
    assert offered_protocols(bytes.fromhex(atr)) == protocols


@pytest.mark.parametrize(
    "raw",
    [
        # As Linux's driver and a card with a CRC exchanged them; then as Windows' driver did, with another CRC.
        *("00C101FE544E", "00E101FE5775", "00000500A4000000B8DA", "009000206E", "008000B5FF"),
        "00600700028A01AA9000A633",
        "00C101FEECD1",
        "00E101FE26D0",
        # With an LRC.
        *("00C000C0", "000002000002"),
    ],
)
def test_blocks_are_intact(raw: str) -> None:
    block = read_block(bytes.fromhex(raw))
    assert block is not None
    assert block.is_intact

    damaged = read_block(bytes.fromhex(raw)[:-1] + b"\x77")
    assert damaged is not None
    assert not damaged.is_intact


def test_blocks_say_what_they_are() -> None:
    def block(pcb: int) -> tuple[object, ...]:
        read = read_block(bytes((0, pcb, 0, 0)))
        assert read is not None
        return read.is_information, read.is_receipt, read.supervisory, read.sequence

    assert block(0x00) == (True, False, None, 0)
    assert block(0x60) == (True, False, None, 1)
    assert block(0x80) == (False, True, None, 0)
    assert block(0x91) == (False, True, None, 1)
    assert block(0xC0)[2] == Supervisory.RESYNCH
    assert block(0xE3)[2] == Supervisory.WTX


@pytest.mark.parametrize("raw", ["", "0000", "000000", "00000100000000", "0000FF" + "00" * 256])
def test_blocks_of_other_lengths(raw: str) -> None:
    assert read_block(bytes.fromhex(raw)) is None


def test_a_readers_class_descriptor_is_found() -> None:
    raw = class_descriptor(EXTENDED, max_slot_index=1)
    hid = bytes((9, 0x21)) + bytes(7)

    found = read_class_descriptor(bytes((9, 4, 0, 0, 3, 0x0B, 0, 0, 0)) + hid + raw + bytes((7, 5)) + bytes(5))

    assert found is not None
    assert (found.level, found.max_message_bytes, found.max_slot_index) == (ExchangeLevel.EXTENDED_APDU, 3072, 1)
    levels = [read_class_descriptor(class_descriptor(level)) for level in (0, TPDU, SHORT)]
    assert [one and one.level for one in levels] == ["character", "tpdu", "short-apdu"]


@pytest.mark.parametrize("raw", [b"", b"\0\0", class_descriptor(SHORT)[:53], b"\x01" + class_descriptor(SHORT)])
def test_a_device_without_one(raw: bytes) -> None:
    assert read_class_descriptor(raw) is None


def test_messages() -> None:
    command = read_command(message(0x6F, 7, b"\x01\x02", level=0x10, slot=3))
    answer = read_answer(data_block(9, b"\x90\x00", chain=2, status=0x41, error=0xFE))

    assert (command.kind, command.slot, command.sequence, command.level_parameter) == (0x6F, 3, 7, 0x10)
    assert (answer.kind, answer.sequence, answer.error, answer.specific, answer.data) == (0x80, 9, 0xFE, 2, b"\x90\x00")
    assert (answer.command_status, answer.is_untried) == (1, False)
    assert answer.encode() == data_block(9, b"\x90\x00", chain=2, status=0x41, error=0xFE)
    assert "90" not in repr(answer)


def test_framing() -> None:
    framing = Framing(max_message_bytes=100, packet_bytes=8)
    whole = message(0x6F, 1, bytes(14))
    assert len(whole) == 24

    first, second = framing.feed(whole[:16]), framing.feed(whole[16:])
    assert (first.messages, first.is_split, first.fault) == ((), True, None)
    assert (second.messages, second.is_split, second.fault) == ((whole,), True, None)
    assert framing.feed(whole).is_split is False
    assert framing.feed(b"") == framing.feed(b"")
    assert framing.feed(whole + whole).fault is FramingFault.TRAILING
    assert framing.feed(whole + whole[:3]).fault is FramingFault.TRAILING
    assert framing.feed(whole[3:]).messages == (whole,)
    assert framing.feed(whole[:11]).fault is FramingFault.SHORT_TRANSFER
    assert framing.feed(b"").fault is FramingFault.SHORT_TRANSFER
    assert framing.feed(whole[11:]).messages == (whole,)
    assert framing.feed(message(0x6F, 1, bytes(91))).fault is FramingFault.TOO_LONG
    assert framing.feed(whole).messages == (whole,)


def test_a_payload_of_many_messages_is_not_read_to_its_end() -> None:
    framing = Framing(max_message_bytes=100, packet_bytes=8)

    framed = framing.feed(message(0x65, 1) * 100_000)

    assert (len(framed.messages), framed.fault) == (16, FramingFault.TRAILING)
    assert framing.feed(message(0x65, 2)).messages == (message(0x65, 2),)


def test_no_reader_makes_it_hold_more_than_any_message_has() -> None:
    framing = Framing(max_message_bytes=2**32 - 1, packet_bytes=64)

    assert framing.feed(message(0x6F, 1, bytes(MAX_MESSAGE_BYTES - 10))).fault is None
    assert framing.feed(message(0x6F, 1, bytes(MAX_MESSAGE_BYTES - 9))).fault is FramingFault.TOO_LONG
