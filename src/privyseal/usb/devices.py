# SPDX-License-Identifier: Apache-2.0
"""The USB devices that sysfs shows (Documentation/ABI/testing/sysfs-bus-usb), each read once into a value.

A device that vanishes while it is read, or whose attributes are not the kernel's, is left out.
"""

import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.errors import UsbError
from privyseal.usb.selector import BUS_ID, UsbSelector
from privyseal.usb.sysfs import read_number, read_text

__all__ = ["CCID_CLASS", "HUB_CLASS", "UsbDevice", "read_device", "scan", "select"]

#: Class codes of USB-IF: smart card readers and tokens; hubs.
CCID_CLASS: Final = 0x0B
HUB_CLASS: Final = 0x09

#: More than the kernel has places for: 127 devices a bus.
_ENTRIES: Final = 16_384
_INTERFACES: Final = 32
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbDevice:
    """One device, as it was when it was read.

    Attributes:
        bus_id: Bus and ports, such as `1-1.4`: it stays the same while the device stays in its port.
        bus_number: 1 and up.
        device_number: 1 to 127; a new one each time the device is attached.
        vendor_id, product_id: 0 to 65535.
        serial, product: What the device says; empty if it says nothing.
        device_class: Of the device itself; 0 if its interfaces tell.
        interface_classes: In the order of the interfaces; empty while it is not configured.
        is_imported: Whether it is attached over the network, by vhci_hcd.
        node: Its file in /dev.
    """

    bus_id: str
    bus_number: int
    device_number: int
    vendor_id: int
    product_id: int
    serial: str
    product: str
    device_class: int
    interface_classes: tuple[int, ...]
    is_imported: bool
    node: Path

    def __str__(self) -> str:
        name = f" {self.product}" if self.product else ""
        return f"{self.bus_id} ({self.vendor_id:04x}:{self.product_id:04x}{name})"

    @property
    def is_hub(self) -> bool:
        """Whether other devices hang on it."""
        return self.device_class == HUB_CLASS

    @property
    def is_reader(self) -> bool:
        """Whether it is a smart card reader or token that pcscd can use without a vendor's program."""
        return CCID_CLASS in (self.device_class, *self.interface_classes)

    @property
    def hub_bus_id(self) -> str:
        """Bus id of the hub that it hangs on; `usb1` for a port of the host itself on bus 1."""
        above, dot, _ = self.bus_id.rpartition(".")
        return above if dot else f"usb{self.bus_number}"

    @property
    def port(self) -> int:
        """Number of its port at that hub, 1 and up."""
        return int(re.split(r"[-.]", self.bus_id)[-1])

    def is_same_as(self, other: "UsbDevice") -> bool:
        """Whether both are one thing in one port, as far as it shows: number and interfaces may differ."""
        return (self.bus_id, self.vendor_id, self.product_id, self.serial) == (
            other.bus_id,
            other.vendor_id,
            other.product_id,
            other.serial,
        )


def scan(sysfs: Path, nodes: Path) -> tuple[UsbDevice, ...]:
    """All devices but the hosts' own hubs, ordered by bus and port.

    Args:
        sysfs: /sys/bus/usb/devices.
        nodes: /dev/bus/usb.

    Raises:
        UsbError: `usb.no_sysfs` if the kernel shows no USB.
    """
    try:
        with os.scandir(sysfs) as entries:
            names = [entry.name for entry in itertools.islice(entries, _ENTRIES)]
    except OSError as error:
        raise UsbError(
            "usb.no_sysfs",
            f"{sysfs} cannot be read: {error.strerror}: this host shows no USB devices",
            hint="in a container, hand in /sys and the device; else look for USB in `dmesg`",
        ) from error
    found = (read_device(sysfs, nodes, name) for name in names if BUS_ID.fullmatch(name))
    return tuple(sorted((device for device in found if device is not None), key=_place))


def read_device(sysfs: Path, nodes: Path, bus_id: str) -> UsbDevice | None:
    """One device; None if nothing is attached there, or nothing that can be read."""
    folder = sysfs / bus_id
    try:
        # Through the links to the device's place below its host.
        place = Path(os.path.realpath(folder))
        bus_number = read_number(folder / "busnum", base=10, largest=9999)
        device_number = read_number(folder / "devnum", base=10, largest=127)
        return UsbDevice(
            bus_id=bus_id,
            bus_number=bus_number,
            device_number=device_number,
            vendor_id=read_number(folder / "idVendor", base=16, largest=0xFFFF),
            product_id=read_number(folder / "idProduct", base=16, largest=0xFFFF),
            serial=read_text(folder / "serial"),
            product=read_text(folder / "product"),
            device_class=read_number(folder / "bDeviceClass", base=16, largest=0xFF),
            interface_classes=_interface_classes(folder, bus_id),
            is_imported=any(part.startswith("vhci_hcd") for part in place.parts),
            node=nodes / f"{bus_number:03d}" / f"{device_number:03d}",
        )
    except (OSError, ValueError):
        return None


def _interface_classes(folder: Path, bus_id: str) -> tuple[int, ...]:
    pattern = re.compile(rf"{re.escape(bus_id)}:[0-9]{{1,3}}\.([0-9]{{1,3}})", re.ASCII)
    with os.scandir(folder) as entries:
        names = [entry.name for entry in itertools.islice(entries, _ENTRIES)]
    interfaces = sorted((int(found[1]), name) for name in names if (found := pattern.fullmatch(name)))
    return tuple(
        read_number(folder / name / "bInterfaceClass", base=16, largest=0xFF) for _, name in interfaces[:_INTERFACES]
    )


def _place(device: UsbDevice) -> tuple[int, ...]:
    return tuple(int(part) for part in re.split(r"[-.]", device.bus_id))


def select(devices: Iterable[UsbDevice], selector: UsbSelector) -> UsbDevice:
    """The one device that fits.

    Raises:
        UsbError: `usb.not_found`, `usb.several`; `usb.is_hub` if it is a hub: others hang on it.
    """
    present = tuple(devices)
    fitting = tuple(device for device in present if _fits(device, selector))
    if len(fitting) > 1:
        raise UsbError(
            "usb.several",
            f"several USB devices fit {selector}: {_listed(fitting)}",
            hint="name one by its serial number or its bus id",
        )
    if not fitting:
        raise UsbError(
            "usb.not_found",
            f"no USB device fits {selector}; attached are {_listed(present) or 'none'}",
            hint="look whether it is inserted and has power",
        )
    if fitting[0].is_hub:
        raise UsbError(
            "usb.is_hub",
            f"{fitting[0]} is a hub: other devices hang on it",
            hint="name the token, not the hub that it hangs on",
        )
    return fitting[0]


def _fits(device: UsbDevice, selector: UsbSelector) -> bool:
    return (
        (not selector.bus_id or device.bus_id == selector.bus_id)
        and (not selector.serial or device.serial == selector.serial)
        and (selector.vendor_id is None or device.vendor_id == selector.vendor_id)
        and (selector.product_id is None or device.product_id == selector.product_id)
    )


def _listed(devices: tuple[UsbDevice, ...]) -> str:
    more = f" and {len(devices) - _SHOWN} more" if len(devices) > _SHOWN else ""
    return ", ".join(map(str, devices[:_SHOWN])) + more
