# SPDX-License-Identifier: Apache-2.0
"""Which devices of this host may be exported, by which name: tokens and readers, and what the configuration adds."""

import contextlib
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

from privyseal.errors import ConfigError, UsbError
from privyseal.usb.devices import CCID_CLASS, HUB_CLASS, UsbDevice, select
from privyseal.usb.host import UsbHost
from privyseal.usb.selector import BUS_ID, UsbSelector, parse_selector

__all__ = ["HID_CLASS", "STORAGE_CLASS", "Catalogue", "ExportRules", "NamedDevice", "Offer"]

#: Class codes of USB-IF that a configuration may add.
HID_CLASS: Final = 0x03
STORAGE_CLASS: Final = 0x08

_VENDOR_CLASS: Final = 0xFF
_CLASS_NAMES: Final = {
    0x01: "audio",
    0x02: "communication",
    HID_CLASS: "keyboards and other HID",
    STORAGE_CLASS: "storage",
    0x0E: "video",
    0xE0: "wireless",
    _VENDOR_CLASS: "its vendor's own",
}
#: Makers of tokens and readers, some of which have interfaces of a class of their own.
_TOKEN_VENDORS: Final = frozenset(
    {
        0x04B9,  # SafeNet, before Rainbow: iKey
        0x04E6,  # Identiv, before SCM
        0x0529,  # SafeNet, before Aladdin: eToken
        0x076B,  # HID Global, before OMNIKEY
        0x08E6,  # Thales, before Gemalto
        0x096E,  # Feitian
        0x0A89,  # Aktiv: Rutoken
        0x1050,  # Yubico
        0x20A0,  # Nitrokey
        0x24DC,  # Aladdin R.D.: JaCarta
    }
)
_NICKNAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
#: Between two looks; the kernel's events wake earlier, where they can be had.
_LOOK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDevice:
    """A device with a name of ours.

    Attributes:
        nickname: Letters, digits, `.`, `_` and `-`, at most 64, and no bus id.
        selector: Which device it is.

    Raises:
        ConfigError: `usb.nickname`.
    """

    nickname: str
    selector: UsbSelector

    def __post_init__(self) -> None:
        if not _NICKNAME.fullmatch(self.nickname) or BUS_ID.fullmatch(self.nickname):
            raise ConfigError(
                "usb.nickname",
                f"{self.nickname[:80]!r} is no name for a device",
                hint="use letters, digits, `.`, `_` and `-`; a bus id such as 1-1.4 is no nickname",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRules:
    """What may be exported.

    Attributes:
        named: Devices with names of ours; each name once.
        only_named: Whether no other device is offered.
        classes: Of interfaces; every interface of a device must have one of them. Interfaces of a vendor's own class
            are taken of makers of tokens, too.
        with_imported: Whether a device that this host has imported itself is offered on.
    """

    named: tuple[NamedDevice, ...] = ()
    only_named: bool = False
    classes: frozenset[int] = frozenset({CCID_CLASS})
    with_imported: bool = False

    def obstacle(self, device: UsbDevice) -> str:
        """Why a device is not exported; empty if it may be."""
        if device.is_hub:
            return "is a hub: other devices hang on it"
        if device.is_imported and not self.with_imported:
            return "is imported from another host itself"
        if not device.interface_classes:
            return "has no interfaces: no configuration is set"
        refused = sorted({code for code in device.interface_classes if not self._takes(device, code)})
        if refused:
            names = ", ".join(f"{code:02x} ({_CLASS_NAMES.get(code, 'other')})" for code in refused)
            return f"has interfaces of class {names}"
        return ""

    def _takes(self, device: UsbDevice, code: int) -> bool:
        is_tokens_own = code == _VENDOR_CLASS and device.vendor_id in _TOKEN_VENDORS
        return code != HUB_CLASS and (code in self.classes or is_tokens_own)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A device that may be exported; the nickname is empty if it has none."""

    device: UsbDevice
    nickname: str

    def __str__(self) -> str:
        return f"{self.nickname}: {self.device}" if self.nickname else str(self.device)


class Catalogue:
    """The devices of a host, as rules offer them.

    Args:
        host: Whose devices they are.
        rules: Which are offered.
    """

    def __init__(self, host: UsbHost, rules: ExportRules) -> None:
        self._host, self._rules = host, rules
        self._nicknames = {named.nickname: named.selector for named in rules.named}

    async def offers(self) -> tuple[Offer, ...]:
        """What is offered now, ordered by bus and port.

        Raises:
            UsbError: `usb.not_linux`, `usb.no_sysfs`, `usb.no_answer`.
        """
        devices = await self._host.devices()
        names = self._named(devices)
        return tuple(
            Offer(device=device, nickname=names.get(device.bus_id, ""))
            for device in devices
            if (device.bus_id in names or not self._rules.only_named) and not self._rules.obstacle(device)
        )

    async def find(self, name: str) -> Offer:
        """The one device of this nickname or selector (numbers, serial number, bus id).

        Raises:
            UsbError: As `offers` does; `usb.not_found`, `usb.several`, `usb.is_hub`; `usb.not_exportable`.
            ConfigError: `usb.selector`.
        """
        selector = self._nicknames.get(name) or parse_selector(name)
        devices = await self._host.devices()
        device = select(devices, selector)
        nickname = self._named(devices).get(device.bus_id, "")
        obstacle = self._rules.obstacle(device)
        if self._rules.only_named and not nickname:
            obstacle = obstacle or "is not among the devices that are named for export"
        if obstacle:
            raise UsbError(
                "usb.not_exportable",
                f"{device} {obstacle}",
                hint="say in the configuration what may be exported, if it really should be",
            )
        return Offer(device=device, nickname=nickname)

    async def watch(self) -> AsyncIterator[tuple[Offer, ...]]:
        """What is offered: at once, and whenever that changes.

        Raises:
            UsbError: As `offers` does.
        """
        with contextlib.closing(self._host.changes()) as news:
            told: tuple[Offer, ...] | None = None
            while True:
                offers = await self.offers()
                if offers != told:
                    told = offers
                    yield offers
                await news.wait(_LOOK_SECONDS)

    def _named(self, devices: Iterable[UsbDevice]) -> dict[str, str]:
        """Nicknames by bus id; none for a name that fits several devices."""
        names = {}
        for nickname, selector in self._nicknames.items():
            with contextlib.suppress(UsbError):
                names[select(devices, selector).bus_id] = nickname
        return names
