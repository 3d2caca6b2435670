# SPDX-License-Identifier: Apache-2.0
"""Power of a hub's ports: what the hub says of it, and how to switch it.

USB 2.0, sections 11.23 and 11.24; USB 3.2, sections 10.15 and 10.16.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = [
    "CLEAR_PORT_POWER",
    "GET_PORT_STATUS",
    "SET_PORT_POWER",
    "HubDescriptor",
    "disable_attributes",
    "has_power",
    "parse_hub_descriptor",
]

#: bmRequestType, bRequest and wValue of requests to a port; 8 is PORT_POWER.
CLEAR_PORT_POWER: Final = (0x23, 0x01, 8)
SET_PORT_POWER: Final = (0x23, 0x03, 8)
GET_PORT_STATUS: Final = (0xA3, 0x00, 0)

#: bDescriptorType of a hub up to USB 2 and of one from USB 3.
_HUB: Final = 0x29
_SUPERSPEED_HUB: Final = 0x2A
_LEAST_BYTES: Final = 7
_MOST_PORTS: Final = 255

#: Of port status: the second bit is PORT_POWER at a SuperSpeed hub.
_POWER: Final = 0x0100
_SUPERSPEED_POWER: Final = 0x0200

Switching = Literal["each port", "all ports together", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubDescriptor:
    """A hub as it describes itself. Cheap hubs say that they switch and have no switch: seen only when they are used.

    Attributes:
        ports: How many, 1 to 255.
        switching: What its power switches switch.
        is_superspeed: Whether it is the USB 3 side of a hub.
    """

    ports: int
    switching: Switching
    is_superspeed: bool


def parse_hub_descriptor(data: bytes) -> HubDescriptor:
    """Read a hub descriptor.

    Raises:
        ValueError: It is none.
    """
    if len(data) < _LEAST_BYTES or not _LEAST_BYTES <= data[0] <= len(data) or data[1] not in (_HUB, _SUPERSPEED_HUB):
        raise ValueError("no hub descriptor")
    if not data[2]:
        raise ValueError("a hub without ports")
    # wHubCharacteristics, D1..D0: 00 ganged, 01 individual, 1X none.
    mode = data[3] & 0b11
    switching: Switching = "all ports together" if mode == 0 else "each port" if mode == 1 else "none"
    return HubDescriptor(ports=data[2], switching=switching, is_superspeed=data[1] == _SUPERSPEED_HUB)


def has_power(port_status: bytes, *, is_superspeed: bool) -> bool:
    """Whether a port's status (4 bytes, as GET_STATUS gives it) says that it is powered.

    Raises:
        ValueError: It is shorter.
    """
    if len(port_status) < 4:
        raise ValueError("no port status")
    return bool(int.from_bytes(port_status[:2], "little") & (_SUPERSPEED_POWER if is_superspeed else _POWER))


def disable_attributes(sysfs: Path, hub_bus_id: str, port: int) -> tuple[Path, ...]:
    """The kernel's own switches of a port (from Linux 6.0 on), in the order in which to use them; empty if it has none.

    A USB 3 port is two: its power goes off when both its USB 2 and its USB 3 side are off.

    Args:
        sysfs: /sys/bus/usb/devices.
        hub_bus_id: Such as `1-1`, or `usb1`.
        port: 1 and up.
    """
    # The interface of the root hub of bus 1 is 1-0:1.0.
    interface = f"{hub_bus_id.removeprefix('usb')}-0:1.0" if hub_bus_id.startswith("usb") else f"{hub_bus_id}:1.0"
    place = sysfs / interface / f"{hub_bus_id}-port{port}"
    # `peer` is a link that the kernel makes to the other side's port.
    return tuple(path for path in (place / "disable", place / "peer" / "disable") if path.is_file())
