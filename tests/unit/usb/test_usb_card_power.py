# SPDX-License-Identifier: Apache-2.0
"""What is asked of a reader so that its cards are off, and what it says to that."""

import pytest

from privyseal.usb.card_power import Reader, power_off, readers, slot_said_off
from privyseal.usbip.descriptors import parse_descriptors

DEVICE = bytes.fromhex("120100020000004029052006000101020301")
CONFIGURATION = bytes.fromhex("0902ffff0301018032")


def interface(number: int, code: int, *blocks: bytes, alternate: int = 0) -> bytes:
    return bytes((9, 4, number, alternate, 2, code, 0, 0, 0)) + b"".join(blocks)


def bulk(address: int) -> bytes:
    return bytes((7, 5, address, 2, 64, 0, 0))


def ccid(last_slot: int) -> bytes:
    return bytes((54, 0x21, 0x10, 1, last_slot)).ljust(54, b"\0")


def test_the_readers_of_a_device() -> None:
    described = interface(0, 0x0B, ccid(1), bulk(0x02), bulk(0x81))
    described += interface(1, 0x0B, bulk(0x84), bulk(0x03))
    described += interface(1, 0x0B, ccid(9), bulk(0x85), bulk(0x05), alternate=1)
    described += interface(2, 0x03, bulk(0x86), bulk(0x06))
    described += interface(3, 0x0B, ccid(255), bulk(0x07), bulk(0x87))
    described += interface(4, 0x0B, ccid(0), bulk(0x88))

    (configuration,) = parse_descriptors(DEVICE + CONFIGURATION + described).configurations

    assert readers(configuration) == (
        Reader(bulk_out=0x02, bulk_in=0x81, slots=2),
        Reader(bulk_out=0x03, bulk_in=0x84, slots=1),
        Reader(bulk_out=0x07, bulk_in=0x87, slots=16),
    )


def test_the_order() -> None:
    assert power_off(3).hex() == "63000000000303000000"


@pytest.mark.parametrize(
    ("answer", "slot"),
    [
        ("81000000000303010000", 3),  # off
        ("81000000000303020000", 3),  # no card
        ("81000000000303000000", None),  # on still
        ("81000000000303410000", None),  # failed
        ("81000000000304010000", None),  # an answer to something else
        ("80000000000303010000", None),
        ("810000000003030100", None),
        ("", None),
    ],
)
def test_what_a_reader_says(answer: str, slot: int | None) -> None:
    assert slot_said_off(bytes.fromhex(answer)) == slot
