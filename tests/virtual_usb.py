# SPDX-License-Identifier: Apache-2.0
"""The virtual devices of PyPI's `usbip` as devices that our exporter holds, and its client at the other end."""

import asyncio
import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

import usbip
from usbip.core import Urb

from lab.piv.ccid import BULK_IN, BULK_OUT
from lab.piv.vpcd import ATR
from privyseal.errors import UsbError
from privyseal.usb.exporter import Exporter, SessionReport
from privyseal.usb.ports import Done, Transfer
from privyseal.usb.streams import SocketStream
from privyseal.usbip.descriptors import Descriptors, parse_descriptors
from privyseal.usbip.wire import DeviceRecord, InterfaceRecord, ListedDevice, Speed

__all__ = ["CcidHost", "OneSocket", "VirtualBus", "VirtualPort", "exported", "opened"]

SELECT = bytes.fromhex("00A4040009A0000003080000100000")


class VirtualBus:
    """Where a virtual device is plugged in: a transport of the `usbip` package, and an ExportableDevice of ours.

    Attributes:
        holds: How often it was held.
        is_held: Whether it is.
        log: What was done to it: `claim`, `submit`, `cancel`, `reset`, ...
        hold_error: What the next hold fails with.
        port_class: Of the ports that it gives out.
        exports: What was made of it by `exported`.
    """

    def __init__(self) -> None:
        self.plugged: Any = None
        self.port: VirtualPort | None = None
        self.holds = 0
        self.is_held = False
        self.log: list[str] = []
        self.hold_error: Exception | None = None
        self.port_class = VirtualPort
        self.exports: list[Exported] = []

    # As a transport

    def serve(self, device: Any) -> None:
        device.busnum, device.devnum, device.busid = 1, 2, "1-1"
        self.plugged = device

    def stop(self, device: Any = None) -> None:
        port, self.plugged = self.port, None
        if port is not None:
            port.loop.call_soon_threadsafe(port.lose)

    # As an exportable device

    @property
    def descriptors(self) -> Descriptors:
        return parse_descriptors(self.plugged.device_descriptor().pack() + self.plugged.config_bytes())

    @property
    def listed(self) -> ListedDevice:
        found = self.descriptors
        interfaces = [one for one in found.configurations[0].interfaces if one.alternate == 0]
        record = DeviceRecord(
            path="/sys/bus/usb/devices/1-1",
            bus_id="1-1",
            bus_number=1,
            device_number=2,
            speed=Speed.FULL,
            vendor_id=found.device.vendor_id,
            product_id=found.device.product_id,
            device_version=found.device.device_version,
            device_class=0,
            subclass=0,
            protocol=0,
            configuration_value=1,
            configurations=1,
            interfaces=len(interfaces),
        )
        kinds = [
            InterfaceRecord(interface_class=one.interface_class, subclass=one.subclass, protocol=one.protocol)
            for one in interfaces
        ]
        return ListedDevice(device=record, interfaces=tuple(kinds))

    async def hold(self, *, on_done: Callable[[Done], None], on_gone: Callable[[], None]) -> "VirtualPort":
        if self.hold_error is not None:
            error, self.hold_error = self.hold_error, None
            raise error
        if self.is_held:
            raise UsbError("usb.in_use", "another program of this host has 1-1")
        self.is_held = True
        self.holds += 1
        self.log.append("claim")
        self.plugged.reset_io()
        self.port = self.port_class(self, on_done, on_gone)
        return self.port


class VirtualPort:
    """A HeldPort on a virtual device, whose answers come from its own threads."""

    def __init__(self, bus: VirtualBus, on_done: Callable[[Done], None], on_gone: Callable[[], None]) -> None:
        self.bus, self.loop = bus, asyncio.get_running_loop()
        self._on_done, self._on_gone = on_done, on_gone
        self._open: dict[int, Transfer] = {}

    def submit(self, transfer: Transfer) -> None:
        if self.bus.plugged is None:
            raise OSError(errno.ENODEV, "no device")
        self.bus.log.append(f"submit {transfer.address:02x}")
        self._open[transfer.tag] = transfer
        urb = Urb(
            seqnum=transfer.tag,
            direction=int(bool(transfer.address & 0x80)),
            ep=transfer.address & 0x0F,
            length=transfer.length,
            setup=transfer.setup,
            buffer=transfer.data,
        )
        if self.bus.plugged.handle_urb(urb, lambda done: self.loop.call_soon_threadsafe(self.finish, done)) is not None:
            self.loop.call_soon(self.finish, urb)

    def finish(self, urb: Any) -> None:
        transfer = self._open.pop(urb.seqnum, None)
        if transfer is not None:
            is_in = bool(transfer.address & 0x80)
            data = bytes(urb.buffer[: urb.actual]) if is_in and urb.status == 0 else b""
            length = len(data) if is_in else urb.actual
            self._on_done(Done(tag=urb.seqnum, status=urb.status, actual_length=length, data=data))

    def cancel(self, tag: int) -> None:
        self.bus.log.append("cancel")
        if tag in self._open and self.bus.plugged is not None and self._withdraw(tag):
            del self._open[tag]
            self.loop.call_soon(self._on_done, Done(tag=tag, status=-errno.ENOENT))

    def _withdraw(self, tag: int) -> bool:
        """Whether the device has not answered it meanwhile."""
        return any(endpoint.cancel(tag) for endpoint in self.bus.plugged._ep_map.values())

    async def set_interface(self, number: int, alternate: int) -> None:
        self.bus.log.append(f"set_interface {number} {alternate}")

    async def clear_halt(self, address: int) -> None:
        self.bus.log.append(f"clear_halt {address:02x}")
        self.bus.plugged._ep_by_addr(address).clear_halt()

    async def give_back(self) -> None:
        self.bus.log += ["reset", "release"]
        self.bus.is_held = False
        self.bus.port = None
        self._open.clear()
        if self.bus.plugged is None:
            raise OSError(errno.ENODEV, "no device")

    def lose(self) -> None:
        """The device is unplugged: what is open ends, then that is told."""
        for tag in tuple(self._open):
            del self._open[tag]
            self._on_done(Done(tag=tag, status=-errno.ESHUTDOWN))
        self._on_gone()


class OneSocket:
    """A transport of the `usbip` package: the client's end of a pair, once."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def connect(self) -> socket.socket:
        return self._connected


class Exported:
    """An export in the running loop, and the socket of its client."""

    def __init__(self, exporter: Exporter, client: socket.socket, serving: "asyncio.Task[SessionReport]") -> None:
        self.exporter, self.client, self.serving = exporter, client, serving

    async def report(self) -> SessionReport:
        async with asyncio.timeout(20):
            return await self.serving


async def exported(bus: VirtualBus, **options: Any) -> Exported:
    """Serve one client, whose socket is handed out; options are the exporter's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(15)
    stream = await SocketStream.over(ours)
    exporter = Exporter(bus, **options)
    bus.exports.append(Exported(exporter, theirs, asyncio.create_task(exporter.serve(stream))))
    return bus.exports[-1]


async def opened(export: Exported) -> Any:
    """The stranger's client with the device imported; its calls block, and belong into threads."""
    return await asyncio.to_thread(usbip.open, busid="1-1", transport=OneSocket(export.client))


class CcidHost:
    """A host's CCID driver, as small as it gets, on the stranger's client."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self._sequence = 0

    def ask(self, kind: int, data: bytes = b"") -> bytes:
        """The answer, whole."""
        self._sequence = (self._sequence + 1) % 256
        self.handle.bulk_out(BULK_OUT, struct.pack("<BIBBxxx", kind, len(data), 0, self._sequence) + data)
        return bytes(self.handle.bulk_in(BULK_IN, 3082))

    def power_on(self) -> None:
        assert self.ask(0x62)[10:] == ATR

    def transmit(self, apdu: bytes) -> bytes:
        answer = self.ask(0x6F, apdu)
        assert answer[7:9] == b"\0\0", answer
        return answer[10:]
