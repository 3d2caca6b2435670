# SPDX-License-Identifier: Apache-2.0
"""The USB devices of this host for a running agent: found and awaited without blocking its event loop."""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from privyseal.errors import UsbError
from privyseal.usb.aside import aside
from privyseal.usb.calls import KernelCalls, UsbCalls
from privyseal.usb.devices import UsbDevice, read_device, scan, select
from privyseal.usb.selector import UsbSelector
from privyseal.usb.topology import UsbPlace, read_place
from privyseal.usb.uevents import Changes, changes

__all__ = ["UsbHost", "require_linux"]

#: Between two looks while no event tells of a change.
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class UsbHost:
    """This host; with other folders and calls, one that is described by files.

    Attributes:
        sysfs: Where the kernel shows devices.
        nodes: Where their nodes are.
        calls: What changes a device.
        changes: Opens the news of devices that come and go.
    """

    sysfs: Path = Path("/sys/bus/usb/devices")
    nodes: Path = Path("/dev/bus/usb")
    calls: UsbCalls = field(default_factory=KernelCalls)
    changes: Callable[[], Changes] = changes

    async def devices(self) -> tuple[UsbDevice, ...]:
        """All devices, ordered by bus and port.

        Raises:
            UsbError: `usb.not_linux`, `usb.no_sysfs`, `usb.no_answer`.
        """
        require_linux()
        return await aside(lambda: scan(self.sysfs, self.nodes))

    async def find(self, selector: UsbSelector) -> UsbDevice:
        """The one device that fits.

        Raises:
            UsbError: As `devices` does; `usb.not_found`, `usb.several`, `usb.is_hub`.
        """
        return select(await self.devices(), selector)

    async def at(self, bus_id: str) -> UsbDevice | None:
        """What is attached there now.

        Raises:
            UsbError: `usb.no_answer`.
        """
        return await aside(lambda: read_device(self.sysfs, self.nodes, bus_id))

    async def place(self, device: UsbDevice) -> UsbPlace | None:
        """Where a device that was found hangs; None if it has vanished.

        Raises:
            UsbError: `usb.no_answer`.
        """
        return await aside(lambda: read_place(self.sysfs, device))

    async def current(self, device: UsbDevice) -> UsbDevice | None:
        """A device that was found before, as it is now; None if nothing is in its port.

        Raises:
            UsbError: `usb.other_device` if something else is in its port; `usb.no_answer`.
        """
        now = await self.at(device.bus_id)
        if now is not None and not now.is_same_as(device):
            raise UsbError(
                "usb.other_device",
                f"where {device} was there is {now} with serial number {now.serial!r} now",
                hint="put the token back into its port, or name it by its serial number",
            )
        return now

    async def awaited(
        self, before: UsbDevice, news: Changes, *, seconds: float, attached_anew: bool = False
    ) -> UsbDevice:
        """Wait until a device is back in its port, with its node and its interfaces.

        Args:
            before: As it was.
            news: Opened before what made it go.
            seconds: How long to wait.
            attached_anew: Whether it must have another device number than before, as after it had no power.

        Raises:
            UsbError: `usb.not_back`, `usb.no_answer`.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            now = await self.at(before.bus_id)
            if now is not None and _is_back(before, now, attached_anew=attached_anew):
                return now
            left = until - loop.time()
            if left <= 0:
                raise _not_back(before, now, seconds)
            await news.wait(min(left, _LOOK_SECONDS))


def _is_back(before: UsbDevice, now: UsbDevice, *, attached_anew: bool) -> bool:
    is_whole = now.is_same_as(before) and now.interface_classes == before.interface_classes
    is_usable = is_whole and os.path.exists(now.node)  # noqa: PTH110 - Path.exists raises where it may not look
    return is_usable and not (attached_anew and now.device_number == before.device_number)


def require_linux() -> None:
    """See to it that this is Linux.

    Raises:
        UsbError: `usb.not_linux`.
    """
    if sys.platform != "linux":
        raise UsbError(
            "usb.not_linux",
            f"USB devices are reached through Linux's sysfs and usbdevfs; this is {sys.platform}",
            hint="run the agent on the Linux host that the token is attached to, or leave `usb` out of agent.toml",
        )


def _not_back(before: UsbDevice, now: UsbDevice | None, seconds: float) -> UsbError:
    if now is None:
        found = "nothing"
    elif now.is_same_as(before):
        found = f"the same, as number {now.device_number} with interfaces {now.interface_classes}"
    else:
        found = f"{now} with serial number {now.serial!r}"
    return UsbError(
        "usb.not_back",
        f"{before} did not come back within {seconds:g} s; there is {found}",
        hint="look at `dmesg` and at the token's light; take it out and insert it again",
    )
