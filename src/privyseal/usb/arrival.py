# SPDX-License-Identifier: Apache-2.0
"""Waiting until the kernel of this host shows a remote device that was attached to it, and until it is of use."""

import asyncio
import contextlib
from typing import Final

from privyseal.errors import UsbError
from privyseal.usb.aside import aside
from privyseal.usb.devices import CCID_CLASS, UsbDevice
from privyseal.usb.host import UsbHost
from privyseal.usbip.wire import DeviceRecord

__all__ = ["SEEN_SECONDS", "Arrival"]

_LOOK_SECONDS: Final = 0.5
#: The kernel asks for descriptors some dozen times: each is a round trip.
SEEN_SECONDS: Final = 30.0
#: pcscd needs a moment; where none runs, or another program talks to readers itself, this is lost.
_READER_SECONDS: Final = 5.0
_USED_BY_A_PROGRAM: Final = "usbfs"


class Arrival:
    """Tells a device that is attached next from those that were there before."""

    def __init__(self, host: UsbHost, known: frozenset[tuple[str, int]]) -> None:
        self._host: Final = host
        self._known: Final = known

    @classmethod
    async def before(cls, host: UsbHost) -> "Arrival":
        """To be asked for before the device is attached.

        Raises:
            UsbError: `usb.not_linux`, `usb.no_sysfs`, `usb.no_answer`.
        """
        return cls(host, frozenset(map(_identity, await host.devices())))

    async def seen(self, record: DeviceRecord, *, seconds: float = SEEN_SECONDS) -> UsbDevice:
        """The device, once it has its interfaces.

        Raises:
            UsbError: `device.not_seen`, `usb.no_answer`.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        with contextlib.closing(self._host.changes()) as news:
            while True:
                for device in await self._host.devices():
                    if self._is_it(device, record):
                        return device
                left = until_s - loop.time()
                if left <= 0:
                    raise UsbError(
                        "device.not_seen",
                        f"the kernel of this host does not show {record.vendor_id:04x}:{record.product_id:04x} within "
                        f"{seconds:g} s of its being attached",
                        hint="look at `dmesg`; over a slow line, try again",
                    )
                await news.wait(min(left, _LOOK_SECONDS))

    def _is_it(self, device: UsbDevice, record: DeviceRecord) -> bool:
        is_same = (device.vendor_id, device.product_id) == (record.vendor_id, record.product_id)
        is_new = device.is_imported and _identity(device) not in self._known
        return is_same and is_new and bool(device.interface_classes)

    async def reader(self, device: UsbDevice, *, seconds: float = _READER_SECONDS) -> bool:
        """Wait until pcscd has a reader, or another program has; whether one has. At once if it is no reader.

        Raises:
            UsbError: `usb.no_answer`.
        """
        if not device.is_reader:
            return False
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        while not await aside(lambda: _is_taken(self._host, device)):
            if loop.time() > until_s:
                return False
            await asyncio.sleep(_LOOK_SECONDS / 5)
        return True


def _identity(device: UsbDevice) -> tuple[str, int]:
    """What changes when something else is attached there."""
    return device.bus_id, device.device_number


def _is_taken(host: UsbHost, device: UsbDevice) -> bool:
    """Whether a program has an interface for readers; the kernel says so by that interface's driver."""
    for interface in (host.sysfs / device.bus_id).glob(f"{device.bus_id}:*"):
        try:
            is_reader = int((interface / "bInterfaceClass").read_text("ascii"), 16) == CCID_CLASS
            if is_reader and (interface / "driver").readlink().name == _USED_BY_A_PROGRAM:
                return True
        except (OSError, ValueError):
            continue
    return False
