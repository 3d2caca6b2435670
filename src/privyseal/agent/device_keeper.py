# SPDX-License-Identifier: Apache-2.0
"""The devices that this agent lends: which of them are there, and what is announced of them."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import structlog

from privyseal.agent.check import KeyProfile
from privyseal.agent.device_config import DeviceTable
from privyseal.agent.lending import DeviceLender
from privyseal.agent.served import ServedDevice
from privyseal.agent.turns import Turns
from privyseal.errors import PrivysealError
from privyseal.formats.usb import LEASE
from privyseal.usb.catalogue import HID_CLASS, STORAGE_CLASS, Catalogue, ExportRules
from privyseal.usb.devices import CCID_CLASS, UsbDevice
from privyseal.usb.host import UsbHost
from privyseal.wire.link import ProfileAnnouncement

__all__ = ["DeviceKeeper", "LentDevice", "OpenedDevice", "catalogue_of"]

_LOG: Final = structlog.get_logger("privyseal.agent.device")
#: Between two looks; the kernel's events wake earlier.
_LOOK_SECONDS: Final = 5.0
_FOR_EVER_MS: Final = 2**53 - 1
_CLASSES: Final = {"storage": STORAGE_CLASS, "hid": HID_CLASS}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDevice:
    """A device as announced; `served` is None if something stands in the way."""

    announcement: ProfileAnnouncement
    served: ServedDevice | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LentDevice:
    """A device of agent.toml with what lends it.

    Attributes:
        turns: Of those who use it, as a token or as a whole.
    """

    table: DeviceTable
    lender: DeviceLender
    turns: Turns


def catalogue_of(host: UsbHost, table: DeviceTable) -> Catalogue:
    """What of a host's devices a table may mean."""
    classes = frozenset({CCID_CLASS, *(_CLASSES[name] for name in table.classes)})
    return Catalogue(host, ExportRules(classes=classes))


class DeviceKeeper:
    """Looks for the devices again and again.

    Attributes:
        profiles: What is announced of them now.
    """

    def __init__(self, devices: tuple[LentDevice, ...], host: UsbHost, changed: Callable[[], Awaitable[None]]) -> None:
        """`changed` is called when what is announced has changed."""
        self._devices: Final = devices
        self._host: Final = host
        self._changed: Final = changed
        self._catalogues: Final = {one.table.name: catalogue_of(host, one.table) for one in devices}
        self.profiles: tuple[OpenedDevice, ...] = ()

    @property
    def holders(self) -> Mapping[str, str]:
        """Ids of the requests that have a device now, by its name."""
        return {one.table.name: one.lender.holder for one in self._devices if one.lender.holder}

    async def run(self) -> None:
        """Look until cancelled; at once if the kernel tells of a change."""
        with closing(self._host.changes()) as news:
            while True:
                await self.look()
                await news.wait(_LOOK_SECONDS)

    async def look(self) -> None:
        """Find out which devices are there."""
        known = {one.announcement.name: one for one in self.profiles}
        found = tuple([await self._look(one, known.get(one.table.name)) for one in self._devices])
        if found != self.profiles:
            self.profiles = found
            await self._changed()

    async def _look(self, device: LentDevice, known: OpenedDevice | None) -> OpenedDevice:
        if device.lender.holder and known is not None:  # it is reset at the end of its lease, and is away for a moment
            return known
        try:
            offer = await self._catalogues[device.table.name].find(device.table.usb)
        except PrivysealError as error:
            return OpenedDevice(announcement=_announcement(device.table, problem=error), served=None)
        announcement = _announcement(device.table, found=offer.device)
        return OpenedDevice(announcement=announcement, served=_served(device))


def _announcement(
    table: DeviceTable, *, found: UsbDevice | None = None, problem: PrivysealError | None = None
) -> ProfileAnnouncement:
    return ProfileAnnouncement(
        name=table.name,
        token=table.place,
        chain=(),
        level=table.level,
        opaque=(LEASE.name,),
        token_label="" if found is None else found.product or f"{found.vendor_id:04x}:{found.product_id:04x}",
        token_serial="" if found is None else found.serial,
        hardware=True,
        problem_code="" if problem is None else problem.code,
        problem="" if problem is None else problem.message,
        problem_hint="" if problem is None else problem.hint,
    )


def _served(device: LentDevice) -> ServedDevice:
    profile = KeyProfile(
        name=device.table.name,
        token=device.table.place,
        spki=b"",
        level=device.table.level,
        opaque=(LEASE.name,),
        not_before_ms=0,
        not_after_ms=_FOR_EVER_MS,
    )
    return ServedDevice(profile=profile, lender=device.lender, turns=device.turns)
