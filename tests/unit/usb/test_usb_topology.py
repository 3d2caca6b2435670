# SPDX-License-Identifier: Apache-2.0
"""Where a USB device hangs is said in words that a restart of the host does not change."""

from pathlib import Path

import pytest

from privyseal.usb.selector import parse_selector
from privyseal.usb.topology import UsbPlace
from usb_tree import DescribedKernel, UsbTree

PCI = "pci0000:00/0000:00:14.0"


async def place(tree: UsbTree) -> UsbPlace | None:
    host = DescribedKernel().host(tree)
    return await host.place(await host.find(parse_selector("0529:0620")))


async def test_the_whole_way_is_told(tmp_path: Path) -> None:
    tree = UsbTree(tmp_path)
    tree.attach("3-1.4", host=PCI, hub_ids="05e3:0610")

    assert await place(tree) == UsbPlace(
        controller=PCI, ports="1.4", hubs=("1d6b:0002", "05e3:0610"), is_imported=False
    )


async def test_another_number_of_bus_and_device_is_the_same_place(tmp_path: Path) -> None:
    tree = UsbTree(tmp_path)
    tree.attach("1-1.4", number=5)
    before = await place(tree)
    tree.detach("1-1.4")
    tree.attach("2-1.4", number=9)

    assert await place(tree) == before


@pytest.mark.parametrize(
    ("bus_id", "host", "hub"),
    [
        ("1-1.3", PCI, "05e3:0610"),
        ("1-4", PCI, "05e3:0610"),
        ("1-1.4", "pci0000:00/0000:00:1d.0", "05e3:0610"),
        ("1-1.4", PCI, "2109:2817"),
        ("1-1.4", "platform/vhci_hcd.0", "05e3:0610"),
    ],
)
async def test_another_port_hub_or_controller_is_another_place(
    tmp_path: Path, bus_id: str, host: str, hub: str
) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    before, after = UsbTree(tmp_path / "before"), UsbTree(tmp_path / "after")
    before.attach("1-1.4", host=PCI, hub_ids="05e3:0610")
    after.attach(bus_id, host=host, hub_ids=hub)

    assert await place(after) != await place(before)


async def test_a_device_that_vanishes_is_nowhere(tmp_path: Path) -> None:
    tree = UsbTree(tmp_path)
    tree.attach("1-1.4")
    host = DescribedKernel().host(tree)
    device = await host.find(parse_selector("0529:0620"))
    tree.detach("1-1.4")

    assert await host.place(device) is None
