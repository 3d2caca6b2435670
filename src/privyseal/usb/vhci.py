# SPDX-License-Identifier: Apache-2.0
"""Linux's virtual host controller, `vhci_hcd`: its ports, and how a socket is handed to one."""

import contextlib
import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.errors import UsbError
from privyseal.usb.sysfs import read_attribute
from privyseal.usbip.wire import DeviceRecord, Speed

__all__ = ["Origin", "Vhci", "VhciPort", "not_detached", "parse_status"]

#: VDEV_ST_NULL: nothing is attached there.
_FREE: Final = 4
#: VDEV_ST_USED: its device has an address; before that the kernel does not show which device it is.
_USED: Final = 6
_MAX_PORTS: Final = 1024
_MAX_CONTROLLERS: Final = 64
_ROW: Final = re.compile(rb"(hs|ss)\s+(\d{1,6})\s+(\d{1,3})\s+\d{1,3}\s+([0-9a-fA-F]{1,8})\s")
_WORD: Final = re.compile(r"[!-~]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class VhciPort:
    """A port.

    Attributes:
        number: Among all controllers.
        is_superspeed: Whether it is for USB 3.
        status: 4 if nothing is attached, 6 if a device is in use.
        device_id: Of the device at its exporter.
    """

    number: int
    is_superspeed: bool
    status: int
    device_id: int

    @property
    def is_free(self) -> bool:
        """Whether a device can be attached."""
        return self.status == _FREE


def parse_status(text: bytes) -> tuple[VhciPort, ...]:
    """Read the controller's table; rows of another form are left out."""
    rows = (_ROW.match(line.strip() + b" ") for line in text.splitlines()[: _MAX_PORTS + 1])
    return tuple(
        VhciPort(number=int(row[2]), is_superspeed=row[1] == b"ss", status=int(row[3]), device_id=int(row[4], 16))
        for row in rows
        if row
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where an attached device is, as `usbip port` shows it; words of printable ASCII.

    Attributes:
        host, service: Name and port of the exporter.
        bus_id: At the exporter.
    """

    host: str
    service: str
    bus_id: str

    def __str__(self) -> str:
        words = (self.host, self.service, self.bus_id)
        return " ".join(word if _WORD.fullmatch(word) else "?" for word in words)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vhci:
    """The controller of this host; with other folders, one that is described by files. Its calls may wait a little.

    Attributes:
        folder: Where the kernel shows it.
        records: Where the program `usbip` looks for what is attached.
        write: Writes to an attribute.
    """

    folder: Path = Path("/sys/devices/platform/vhci_hcd.0")
    records: Path = Path("/var/run/vhci_hcd")
    write: Callable[[Path, str], None] = _write

    def ports(self) -> tuple[VhciPort, ...]:
        """All ports of all controllers.

        Raises:
            UsbError: `usb.no_vhci` if the kernel has no such controller.
        """
        try:
            found = list(parse_status(read_attribute(self.folder / "status")))
        except OSError as error:
            raise UsbError(
                "usb.no_vhci",
                f"this host has no virtual USB controller: {self.folder}: {error.strerror}",
                hint="modprobe vhci_hcd, as root; the kernel must have been built with it",
            ) from error
        for number in range(1, _MAX_CONTROLLERS):
            try:
                found += parse_status(read_attribute(self.folder / f"status.{number}"))
            except OSError:
                break
        return tuple(found[:_MAX_PORTS])

    def attach(self, device: DeviceRecord, descriptor: int, origin: Origin) -> int:
        """Hand a connected socket to a free port of the device's speed; the port's number.

        Args:
            device: As its exporter describes it.
            descriptor: Of the socket, a stream; the kernel keeps a reference of its own.
            origin: For `usbip port`.

        Raises:
            UsbError: `usb.no_vhci`, `usb.no_vhci_port`, `usb.denied`, `usb.attach_failed`.
        """
        is_superspeed = device.speed in (Speed.SUPER, Speed.SUPER_PLUS)
        for port in self.ports():
            if not port.is_free or port.is_superspeed is not is_superspeed:
                continue
            try:
                self.write(self.folder / "attach", f"{port.number} {descriptor} {device.device_id} {int(device.speed)}")
            except OSError as error:
                if error.errno == errno.EBUSY:  # somebody else was faster
                    continue
                raise _refused(self.folder, device, error) from error
            self._record(port.number, origin)
            return port.number
        raise UsbError(
            "usb.no_vhci_port",
            f"no port of the virtual USB controller is free for {device.bus_id}",
            hint="detach what is not needed: `usbip port` shows what is attached",
        )

    def detach(self, number: int, device: DeviceRecord, origin: Origin) -> None:
        """Take a device out of its port; nothing happens if it is not there any more.

        Raises:
            UsbError: `usb.denied`, `usb.detach_failed`.
        """
        self._forget(number, origin)
        if self.has_let_go(number, device):
            return
        try:
            self.write(self.folder / "detach", str(number))
        except OSError as error:
            if self.has_let_go(number, device):  # the kernel was faster
                return
            if error.errno in (errno.EACCES, errno.EPERM):
                raise _denied(self.folder) from error
            raise not_detached(number, str(error.strerror)) from error

    def has_let_go(self, number: int, device: DeviceRecord) -> bool:
        """Whether a device is not in its port any more: nothing is, or another one already."""
        try:
            port = next((port for port in self.ports() if port.number == number), None)
        except UsbError:  # the whole controller is gone
            return True
        return port is None or port.is_free or (port.status == _USED and port.device_id != device.device_id)

    def _record(self, number: int, origin: Origin) -> None:
        """Without its record `usbip port` shows the device all the same, but not from where."""
        with contextlib.suppress(OSError):
            self.records.mkdir(mode=0o700, exist_ok=True)
            path = self.records / f"port{number}"
            path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(path, flags, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123 - of our making
                file.write(f"{origin}\n")

    def _forget(self, number: int, origin: Origin) -> None:
        """Take the record away, unless it is of another device that is there already."""
        path = self.records / f"port{number}"
        with contextlib.suppress(OSError, ValueError):
            if path.read_text("ascii") == f"{origin}\n":
                path.unlink()


def not_detached(number: int, why: str) -> UsbError:
    """The error of a port that does not let go."""
    return UsbError(
        "usb.detach_failed",
        f"port {number} of the virtual USB controller does not let go: {why}",
        hint="`usbip detach -p` with the port's number, as root; look at `dmesg`",
    )


def _refused(folder: Path, device: DeviceRecord, error: OSError) -> UsbError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return _denied(folder)
    return UsbError(
        "usb.attach_failed",
        f"the virtual USB controller does not take {device.bus_id}: {error.strerror}",
        hint="look at `dmesg`",
    )


def _denied(folder: Path) -> UsbError:
    return UsbError(
        "usb.denied",
        f"this account may not attach devices: it cannot write to {folder}",
        hint="attaching needs root, or write access to `attach` and `detach` there",
    )
