# SPDX-License-Identifier: Apache-2.0
"""Descriptors as devices have them: with alternates, cut off, or wrong."""

import pytest

from privyseal.errors import MalformedInputError
from privyseal.usbip.descriptors import EndpointKind, parse_descriptors

DEVICE = bytes.fromhex("1201000200000040290520060001010203 02")
CONFIGURATION = bytes.fromhex("0902ffff0201018032")


def interface(number: int, alternate: int, code: int) -> bytes:
    return bytes((9, 4, number, alternate, 2, code, 0, 0, 0))


def endpoint(address: int, kind: int, packet: int = 64) -> bytes:
    return bytes((7, 5, address, kind)) + packet.to_bytes(2, "little") + b"\x10"


def test_two_interfaces_one_with_alternates() -> None:
    found = parse_descriptors(
        DEVICE
        + CONFIGURATION
        + interface(0, 0, 0x0B)
        + bytes((54, 0x21)).ljust(54, b"\7")
        + endpoint(0x81, 2)
        + interface(1, 0, 0xFF)
        + endpoint(0x83, 3, 8)
        + interface(1, 1, 0xFF)
        + endpoint(0x83, 2)
        + endpoint(0x04, 1)
        + CONFIGURATION.replace(b"\x02\x01\x01", b"\x01\x02\x00")
    )

    first, second = found.configurations
    assert (first.value, second.value, first.numbers, second.numbers) == (1, 2, (0, 1), ())
    assert (found.configuration(2), found.configuration(9)) == (second, None)
    assert first.interfaces[0].others == (bytes((54, 0x21)).ljust(54, b"\7"),)
    assert {address: one.kind for address, one in first.endpoints().items()} == {
        0x81: EndpointKind.BULK,
        0x83: EndpointKind.INTERRUPT,
    }
    assert {address: one.kind for address, one in first.endpoints({1: 1}).items()} == {
        0x81: EndpointKind.BULK,
        0x83: EndpointKind.BULK,
        0x04: EndpointKind.ISOCHRONOUS,
    }


@pytest.mark.parametrize("end", [b"", b"\0\5", b"\1\5", b"\7\5\x81", b"\2\5", b"\7\6\0\0\0\0\0"])
def test_what_is_cut_off_or_strange_is_left_out(end: bytes) -> None:
    (found,) = parse_descriptors(DEVICE + CONFIGURATION + interface(0, 0, 0x0B) + end).configurations

    assert found.interfaces[0].endpoints == ()


@pytest.mark.parametrize("data", [b"", DEVICE[:17], CONFIGURATION, b"\2\1" + DEVICE, bytes(18)])
def test_no_device_descriptor(data: bytes) -> None:
    with pytest.raises(MalformedInputError, match="no device descriptor") as caught:
        parse_descriptors(data)

    assert caught.value.code == "usb.descriptors"


def test_much_too_much_is_bounded() -> None:
    found = parse_descriptors(DEVICE + CONFIGURATION + (interface(0, 0, 0x0B) + endpoint(0x81, 2) * 100) * 300)

    assert len(found.configurations[0].interfaces) <= 256
    assert all(len(one.endpoints) <= 30 for one in found.configurations[0].interfaces)
