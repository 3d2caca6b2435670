# SPDX-License-Identifier: Apache-2.0
"""How a configuration names a USB device: by numbers, by serial number, or by bus id such as `1-1.4`."""

import re
from dataclasses import dataclass
from typing import Final

from privyseal.errors import ConfigError

__all__ = ["BUS_ID", "UsbSelector", "parse_selector"]

#: Bus, port of the root hub, ports of the hubs behind it: at most five hubs deep (USB 2.0, section 4.1.1; seven tiers).
BUS_ID: Final = re.compile(r"[1-9][0-9]{0,3}-[1-9][0-9]{0,2}(\.[1-9][0-9]{0,2}){0,5}", re.ASCII)
_IDS: Final = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})(?::(.+))?", re.ASCII | re.IGNORECASE)
_LONGEST_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbSelector:
    """What a device must have; everything that is given must fit.

    Attributes:
        vendor_id, product_id: 0 to 65535.
        serial: As the device gives it.
        bus_id: Where it is attached: bus and ports. Another port is another bus id.
    """

    vendor_id: int | None = None
    product_id: int | None = None
    serial: str = ""
    bus_id: str = ""

    def __str__(self) -> str:
        if self.bus_id:
            return self.bus_id
        if self.vendor_id is None or self.product_id is None:
            return f"serial:{self.serial}"
        return f"{self.vendor_id:04x}:{self.product_id:04x}" + (f":{self.serial}" if self.serial else "")


def parse_selector(text: str) -> UsbSelector:
    """Read a selector; `str` gives it back.

    Raises:
        ConfigError: `usb.selector`.
    """
    if len(text) <= _LONGEST_CHARACTERS and text.isprintable():
        if BUS_ID.fullmatch(text):
            return UsbSelector(bus_id=text)
        if found := _IDS.fullmatch(text):
            return UsbSelector(
                vendor_id=int(found[1], 16), product_id=int(found[2], 16), serial=(found[3] or "").strip()
            )
        serial = text.removeprefix("serial:").strip()
        if text.startswith("serial:") and serial:
            return UsbSelector(serial=serial)
    raise ConfigError(
        "usb.selector",
        f"{text[:_LONGEST_CHARACTERS]!r} names no USB device",
        hint="write 0529:0620, 0529:0620:SERIAL, serial:SERIAL, or a bus id such as 1-1.4; `lsusb` shows the numbers",
    )
