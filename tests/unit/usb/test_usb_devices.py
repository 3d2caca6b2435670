# SPDX-License-Identifier: Apache-2.0
"""What is read from sysfs, where that is as the kernel makes it, and where it is not."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privyseal.errors import UsbError
from privyseal.usb import aside as aside_module
from privyseal.usb import host as host_module
from privyseal.usb.devices import scan, select
from privyseal.usb.host import UsbHost
from privyseal.usb.selector import parse_selector
from privyseal.usb.sysfs import read_text
from usb_tree import UsbTree


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    return UsbTree(tmp_path)


def test_a_token_behind_a_hub(tree: UsbTree) -> None:
    tree.attach("1-1", number=2, ids="0409:55aa", classes=(9,), device_class=9, product="Hub", serial=None)
    tree.attach("1-1.4", number=17, classes=(3, 0x0B))
    (tree.sysfs / "usb1").mkdir()
    (tree.sysfs / "1-0:1.0").mkdir()

    hub, token = scan(tree.sysfs, tree.nodes)

    assert (token.bus_id, token.bus_number, token.device_number) == ("1-1.4", 1, 17)
    assert (token.vendor_id, token.product_id, token.serial, token.product) == (0x0529, 0x0620, "0123", "Token JC")
    assert (token.interface_classes, token.is_reader, token.is_hub, token.is_imported) == (
        (3, 0x0B),
        True,
        False,
        False,
    )
    assert (token.node, token.hub_bus_id, token.port) == (tree.nodes / "001" / "017", "1-1", 4)
    assert (hub.is_hub, hub.is_reader, hub.serial, hub.hub_bus_id, hub.port) == (True, False, "", "usb1", 1)
    assert str(token) == "1-1.4 (0529:0620 Token JC)"


def test_devices_are_ordered_as_their_ports_are(tree: UsbTree) -> None:
    for number, bus_id in enumerate(("2-1", "1-10", "1-2.10", "1-2.9", "1-2"), start=1):
        tree.attach(bus_id, number=number)

    assert [device.bus_id for device in scan(tree.sysfs, tree.nodes)] == ["1-2", "1-2.9", "1-2.10", "1-10", "2-1"]


def test_a_device_that_is_imported_over_the_network(tree: UsbTree) -> None:
    tree.attach("3-1", host="platform/vhci_hcd.0")
    tree.attach("1-1", number=9)

    assert [device.is_imported for device in scan(tree.sysfs, tree.nodes)] == [False, True]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0529:0620:A", "1-1"),
        ("serial:B", "1-2.1"),
        ("1-2.2", "1-2.2"),
        ("08E6:3437", "1-2.2"),
    ],
)
def test_each_kind_of_selector_finds_its_device(tree: UsbTree, text: str, found: str) -> None:
    tree.attach("1-1", number=2, serial="A")
    tree.attach("1-2.1", number=3, serial="B")
    tree.attach("1-2.2", number=4, serial=None, ids="08e6:3437")

    assert select(scan(tree.sysfs, tree.nodes), parse_selector(text)).bus_id == found


def test_none_several_and_a_hub_are_told_apart(tree: UsbTree) -> None:
    tree.attach("1-2", number=2, ids="0409:55aa", classes=(9,), device_class=9)
    for port in range(1, 8):
        tree.attach(f"1-2.{port}", number=2 + port)
    devices = scan(tree.sysfs, tree.nodes)

    with pytest.raises(UsbError, match=r"no USB device fits serial:B; attached are 1-2 .*and 3 more") as none:
        select(devices, parse_selector("serial:B"))
    with pytest.raises(UsbError, match=r"several USB devices fit 0529:0620: 1-2.1 .*and 2 more") as several:
        select(devices, parse_selector("0529:0620"))
    with pytest.raises(UsbError, match=r"1-2 .* is a hub") as hub:
        select(devices, parse_selector("1-2"))
    with pytest.raises(UsbError, match="attached are none"):
        select((), parse_selector("1-2"))

    assert [error.value.code for error in (none, several, hub)] == ["usb.not_found", "usb.several", "usb.is_hub"]
    assert none.value.exit_status == 8


async def test_a_host_without_usb(tmp_path: Path) -> None:
    with pytest.raises(UsbError, match="shows no USB devices") as caught:
        await UsbHost(sysfs=tmp_path / "none").devices()

    assert caught.value.code == "usb.no_sysfs"


async def test_another_system_is_told_that_this_is_for_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")

    with pytest.raises(UsbError, match="this is darwin") as caught:
        await UsbHost().devices()

    assert caught.value.code == "usb.not_linux"


def _vanish(place: Path) -> None:
    (place / "devnum").unlink()


def _binary(place: Path) -> None:
    (place / "idVendor").write_bytes(bytes(range(256)))


def _huge_number(place: Path) -> None:
    (place / "devnum").write_text("9" * 5000)


def _too_large(place: Path) -> None:
    (place / "devnum").write_text("128\n")


def _folder(place: Path) -> None:
    (place / "busnum").unlink()
    (place / "busnum").mkdir()


def _fifo(place: Path) -> None:
    (place / "idProduct").unlink()
    os.mkfifo(place / "idProduct")


def _link_to_itself(place: Path) -> None:
    (place / "bDeviceClass").unlink()
    (place / "bDeviceClass").symlink_to("bDeviceClass")


def _link_out(place: Path) -> None:
    (place / "devnum").unlink()
    (place.parent / "elsewhere").write_text("7\n")
    (place / "devnum").symlink_to(place.parent / "elsewhere")


def _interface_gone(place: Path) -> None:
    (place / f"{place.name}:1.0" / "bInterfaceClass").unlink()


@pytest.mark.parametrize(
    "harm",
    [_vanish, _binary, _huge_number, _too_large, _folder, _fifo, _link_to_itself, _link_out, _interface_gone],
)
def test_a_device_that_cannot_be_read_is_left_out_and_the_others_are_not(tree: UsbTree, harm: object) -> None:
    place = tree.attach("1-1", number=2)
    tree.attach("1-2", number=3)
    assert callable(harm)
    harm(place)

    assert [device.bus_id for device in scan(tree.sysfs, tree.nodes)] == ["1-2"]


def test_links_in_a_loop_and_strange_names_are_left_out(tree: UsbTree) -> None:
    tree.attach("1-2", number=3)
    (tree.sysfs / "1-3").symlink_to("1-4")
    (tree.sysfs / "1-4").symlink_to("1-3")
    for name in ("1-", "1-2:1.0", "0-1", "1-1.1.1.1.1.1.1", "\u0661-1", "1-2\n"):
        (tree.sysfs / name).mkdir()

    assert [device.bus_id for device in scan(tree.sysfs, tree.nodes)] == ["1-2"]


def test_strings_of_the_device_are_fit_to_be_shown(tree: UsbTree) -> None:
    tree.attach("1-1", serial=b"A\x1b[2J\xff\x00B" + b"C" * 5000, product="T\u202e\u2028oken".encode())

    (device,) = scan(tree.sysfs, tree.nodes)

    assert device.serial == "A\ufffd[2J\ufffd\ufffdB" + "C" * 118
    assert device.product == "T\ufffd\ufffdoken"


@given(st.binary(max_size=600))
def test_any_string_becomes_short_and_printable(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "string"
    path.write_bytes(content)

    text = read_text(path)

    assert len(text) <= 126
    assert not set(text) & {chr(code) for code in (*range(32), *range(0x7F, 0xA0), 0x202E)}
    text.encode()


async def test_a_kernel_that_does_not_answer_stops_nobody(monkeypatch: pytest.MonkeyPatch, tree: UsbTree) -> None:
    release = threading.Event()

    def scan_that_hangs(*_: object) -> tuple[()]:
        release.wait()
        return ()

    monkeypatch.setattr(host_module, "scan", scan_that_hangs)
    monkeypatch.setattr(aside_module, "_READ_SECONDS", 0.05)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    try:
        with pytest.raises(UsbError) as caught:
            await UsbHost(sysfs=tree.sysfs).devices()
    finally:
        counting.cancel()
        release.set()

    assert caught.value.code == "usb.no_answer"
    assert turns > 10
