# SPDX-License-Identifier: Apache-2.0
"""Selectors, events of the kernel, descriptors of hubs: what they give, and that nothing makes them fail otherwise."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import ConfigError
from privyseal.usb.hubs import has_power, parse_hub_descriptor
from privyseal.usb.selector import UsbSelector, parse_selector
from privyseal.usb.uevents import parse_uevent
from usb_tree import hub_descriptor

IDS = st.integers(min_value=0, max_value=0xFFFF)
SERIALS = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=126)
PORTS = st.lists(st.integers(min_value=1, max_value=255), min_size=1, max_size=6)
SELECTORS = st.one_of(
    st.builds(UsbSelector, vendor_id=IDS, product_id=IDS),
    st.builds(UsbSelector, vendor_id=IDS, product_id=IDS, serial=SERIALS),
    st.builds(UsbSelector, serial=SERIALS),
    st.builds(lambda bus, ports: UsbSelector(bus_id=f"{bus}-{'.'.join(map(str, ports))}"), st.integers(1, 999), PORTS),
)


@given(SELECTORS)
def test_a_selector_is_written_as_it_is_read(selector: UsbSelector) -> None:
    assert parse_selector(str(selector)) == selector


@given(st.text(max_size=300))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert str(parse_selector(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0529",
        "0529:",
        "0529:06201",
        "529:620",
        "serial:",
        "serial: ",
        "serial:A\x1b[2J",
        "usb1",
        "1-0",
        "1-1.",
        "1-1\n",
        "0-1",
        "1-1.1.1.1.1.1.1",
        "x" * 201,
    ],
)
def test_what_names_no_device_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_selector(text)

    assert caught.value.code == "usb.selector"
    assert caught.value.message.isprintable()


EVENT = (
    b"add@/devices/pci0000:00/usb1/1-1\0ACTION=add\0DEVPATH=/devices/pci0000:00/usb1/1-1\0SUBSYSTEM=usb\0DEVNUM=004\0"
)


def test_an_event_of_the_kernel() -> None:
    event = parse_uevent(EVENT)

    assert event is not None
    assert (event["ACTION"], event["SUBSYSTEM"], event["DEVNUM"]) == ("add", "usb", "004")


@pytest.mark.parametrize(
    "message", [b"", b"\0", b"libudev\0\xfe\xed\xca\xfe", b"add@", b"@/devices", b"add@devices\0A=b"]
)
def test_what_is_no_event_of_the_kernel(message: bytes) -> None:
    assert parse_uevent(message) is None


def test_an_event_with_more_properties_than_the_kernel_gives() -> None:
    event = parse_uevent(EVENT + b"".join(b"K%d=1\0" % number for number in range(1000)))

    assert event is not None
    assert len(event) == 64


@given(st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(EVENT.__add__)))
def test_any_message_is_an_event_or_none(message: bytes) -> None:
    event = parse_uevent(message)

    assert event is None or len(event) <= 64
    assert event is None or not message.startswith(EVENT) or event["SUBSYSTEM"] == "usb"


@pytest.mark.parametrize(("mode", "switching"), [(0, "all ports together"), (1, "each port"), (2, "none"), (3, "none")])
@pytest.mark.parametrize("more", [0, 0b1000, 0b1110_1100])
def test_what_a_hub_switches(mode: int, switching: str, more: int) -> None:
    hub = parse_hub_descriptor(hub_descriptor(mode=mode | more, ports=7))

    assert (hub.ports, hub.switching, hub.is_superspeed) == (7, switching, False)


def test_a_hub_of_usb_3() -> None:
    assert parse_hub_descriptor(bytes([12, 0x2A, 4, 9, 0, 0, 0, 0, 0, 0, 0, 0])).is_superspeed


@given(st.binary(max_size=80))
def test_any_descriptor_is_one_of_a_hub_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        hub = parse_hub_descriptor(data)
        assert 1 <= hub.ports <= 255
        assert data[1] in (0x29, 0x2A)


@pytest.mark.parametrize("cut", range(9))
def test_a_descriptor_that_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match="no hub descriptor"):
        parse_hub_descriptor(hub_descriptor()[:cut])


def test_a_hub_without_ports_is_refused() -> None:
    with pytest.raises(ValueError, match="without ports"):
        parse_hub_descriptor(hub_descriptor(ports=0))


def test_the_power_of_a_port() -> None:
    assert has_power(bytes([0x01, 0x01, 0, 0]), is_superspeed=False)
    assert not has_power(bytes([0x01, 0x02, 0, 0]), is_superspeed=False)
    assert has_power(bytes([0x01, 0x02, 0, 0]), is_superspeed=True)
    with pytest.raises(ValueError, match="no port status"):
        has_power(b"\x01\x01", is_superspeed=False)
