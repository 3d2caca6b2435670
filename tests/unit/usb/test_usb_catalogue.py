# SPDX-License-Identifier: Apache-2.0
"""Which devices are offered, by which names, and how that changes."""

from pathlib import Path

import pytest

from privyseal.errors import ConfigError, UsbError
from privyseal.usb.catalogue import HID_CLASS, STORAGE_CLASS, Catalogue, ExportRules, NamedDevice
from privyseal.usb.selector import parse_selector
from usb_tree import DescribedKernel, UsbTree

CCID, VENDORS = 0x0B, 0xFF


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    return UsbTree(tmp_path)


def catalogue(tree: UsbTree, kernel: DescribedKernel | None = None, **rules: object) -> Catalogue:
    return Catalogue((kernel or DescribedKernel()).host(tree), ExportRules(**rules))  # type: ignore[arg-type]


def named(nickname: str, selector: str) -> NamedDevice:
    return NamedDevice(nickname=nickname, selector=parse_selector(selector))


@pytest.mark.parametrize(
    ("ids", "classes", "device_class", "obstacle"),
    [
        ("08e6:3437", (CCID,), 0, ""),
        ("0529:0600", (VENDORS,), 0, ""),
        ("0529:0620", (CCID, VENDORS), 0, ""),
        ("1050:0407", (HID_CLASS, HID_CLASS, CCID), 0, "has interfaces of class 03 (keyboards and other HID)"),
        ("abcd:0001", (STORAGE_CLASS,), 0, "has interfaces of class 08 (storage)"),
        ("abcd:0001", (CCID, STORAGE_CLASS, 0x77), 0, "has interfaces of class 08 (storage), 77 (other)"),
        ("abcd:0001", (VENDORS,), 0, "has interfaces of class ff (its vendor's own)"),
        ("abcd:0001", (), 0, "has no interfaces: no configuration is set"),
        ("0409:55aa", (9,), 9, "is a hub: other devices hang on it"),
        ("0409:55aa", (9,), 0, "has interfaces of class 09 (other)"),
    ],
)
async def test_tokens_are_offered_and_nothing_else(
    tree: UsbTree, ids: str, classes: tuple[int, ...], device_class: int, obstacle: str
) -> None:
    tree.attach("1-1", ids=ids, classes=classes, device_class=device_class)
    (device,) = await DescribedKernel().host(tree).devices()

    assert ExportRules().obstacle(device) == obstacle
    assert len(await catalogue(tree).offers()) == (not obstacle)


async def test_a_configuration_allows_more_but_never_hubs(tree: UsbTree) -> None:
    tree.attach("1-1", number=2, ids="1050:0407", classes=(HID_CLASS, CCID))
    tree.attach("1-2", number=3, ids="abcd:0001", classes=(STORAGE_CLASS,))
    tree.attach("1-3", number=4, ids="0409:55aa", classes=(9,), device_class=9)
    tree.attach("1-4", number=5, ids="0409:55aa", classes=(9,))
    allowed = frozenset({CCID, HID_CLASS, STORAGE_CLASS, 9})

    assert [offer.device.bus_id for offer in await catalogue(tree, classes=allowed).offers()] == ["1-1", "1-2"]


async def test_a_device_that_is_imported_itself(tree: UsbTree) -> None:
    tree.attach("3-1", host="platform/vhci_hcd.0")

    assert await catalogue(tree).offers() == ()
    assert len(await catalogue(tree, with_imported=True).offers()) == 1
    with pytest.raises(UsbError, match="is imported from another host") as caught:
        await catalogue(tree).find("3-1")
    assert caught.value.code == "usb.not_exportable"


async def test_each_way_to_name_a_device(tree: UsbTree) -> None:
    tree.attach("1-1", number=2, serial="A")
    tree.attach("1-2", number=3, serial="B", ids="08e6:3437")
    shelf = catalogue(tree, named=(named("release-token", "serial:B"),))

    for name in ("release-token", "serial:B", "08e6:3437", "1-2", "08e6:3437:B"):
        assert str(await shelf.find(name)) == "release-token: 1-2 (08e6:3437 Token JC)"
    assert str(await shelf.find("1-1")) == "1-1 (0529:0620 Token JC)"
    for name, code in (("serial:C", "usb.not_found"), ("1-9", "usb.not_found")):
        with pytest.raises(UsbError) as caught:
            await shelf.find(name)
        assert caught.value.code == code
    with pytest.raises(ConfigError):
        await shelf.find("no such name")


async def test_only_named_devices(tree: UsbTree) -> None:
    tree.attach("1-1", number=2, serial="A")
    tree.attach("1-2", number=3, serial="B")
    shelf = catalogue(tree, named=(named("b", "serial:B"), named("gone", "serial:C")), only_named=True)

    assert [offer.nickname for offer in await shelf.offers()] == ["b"]
    with pytest.raises(UsbError, match="not among the devices that are named") as caught:
        await shelf.find("1-1")
    assert caught.value.code == "usb.not_exportable"


async def test_a_nickname_that_fits_two_names_none(tree: UsbTree) -> None:
    tree.attach("1-1", number=2)
    tree.attach("1-2", number=3)
    shelf = catalogue(tree, named=(named("token", "0529:0620"),))

    assert [offer.nickname for offer in await shelf.offers()] == ["", ""]
    with pytest.raises(UsbError) as caught:
        await shelf.find("token")
    assert caught.value.code == "usb.several"


@pytest.mark.parametrize("nickname", ["", "1-1.4", "a b", "-a", "a" * 65, "a\n", "0529:0620", "é"])
def test_what_is_no_nickname(nickname: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named(nickname, "serial:A")

    assert caught.value.code == "usb.nickname"


async def test_what_is_plugged_in_and_out_is_told_once(tree: UsbTree) -> None:
    kernel = DescribedKernel()
    kernel.then = [
        lambda: tree.attach("1-1", number=2),
        lambda: None,
        lambda: tree.attach("1-2", number=3, classes=(STORAGE_CLASS,)),
        lambda: tree.detach("1-1"),
    ]
    told = []
    watching = catalogue(tree, kernel).watch()
    async for offers in watching:
        told.append([offer.device.bus_id for offer in offers])
        if len(told) == 3:
            break
    await watching.aclose()  # type: ignore[attr-defined]

    assert told == [[], ["1-1"], []]
    assert kernel.open_news == 0
