# SPDX-License-Identifier: Apache-2.0
"""Where on this host a USB device hangs, in words that stay the same when the host is started again."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.usb.devices import UsbDevice
from privyseal.usb.sysfs import read_number

__all__ = ["UsbPlace", "read_place"]

#: The host's own hub of a bus; buses are numbered anew with each start.
_ROOT_HUB: Final = re.compile(r"usb[0-9]{1,4}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbPlace:
    """The way from the host to a device.

    Attributes:
        controller: Path of the USB host controller below /sys/devices.
        ports: Numbers of the ports from there on, such as `1.4`.
        hubs: Vendor and product of each hub on the way, such as `1d6b:0002`, the host's own first.
        is_imported: Whether the device is attached over the network, by vhci_hcd.
    """

    controller: str
    ports: str
    hubs: tuple[str, ...]
    is_imported: bool


def read_place(sysfs: Path, device: UsbDevice) -> UsbPlace | None:
    """Where a device hangs; None if it vanishes meanwhile.

    Args:
        sysfs: /sys/bus/usb/devices.
        device: As it was found there.
    """
    # Its link leads to its place below its controller: …/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1.4.
    parts = Path(os.path.realpath(sysfs / device.bus_id)).parts
    root = next((at for at, part in enumerate(parts) if _ROOT_HUB.fullmatch(part)), None)
    if root is None or "devices" not in parts[:root]:
        return None
    below = root - parts[:root][::-1].index("devices")
    try:
        hubs = tuple(_identity(Path(*parts[:end])) for end in range(root + 1, len(parts)))
    except (OSError, ValueError):
        return None
    return UsbPlace(
        controller="/".join(parts[below:root]),
        ports=device.bus_id.partition("-")[2],
        hubs=hubs,
        is_imported=device.is_imported,
    )


def _identity(folder: Path) -> str:
    vendor, product = (read_number(folder / name, base=16, largest=0xFFFF) for name in ("idVendor", "idProduct"))
    return f"{vendor:04x}:{product:04x}"
