# SPDX-License-Identifier: Apache-2.0
"""What a lent device is attached to: this host's virtual USB controller, or a port for another USB/IP client."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from privyseal.client.devices import HeldLease
from privyseal.errors import UsbError
from privyseal.usb.attach import Attachment, attach, import_device
from privyseal.usb.loopback import LoopbackPort
from privyseal.usb.streams import ByteStream, KeptStream, carry
from privyseal.usb.vhci import Origin, Vhci
from privyseal.usbip.wire import DeviceRecord

__all__ = ["AttachedUse", "DeviceUse", "LoopbackUse", "attach_here", "offer_at_port"]


class DeviceUse(Protocol):
    """A device in use."""

    @property
    def where(self) -> str:
        """Where it is, in words."""
        ...

    async def ended(self) -> None:
        """Return when the agent, the network or the using program has ended it; nothing of it is left here then."""
        ...

    async def detach(self) -> None:
        """End it from here, and wait until nothing of it is left here."""
        ...


class AttachedUse:
    """A device at this host's virtual USB controller."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment: Final = attachment

    @property
    def device(self) -> DeviceRecord:
        """As its exporter describes it."""
        return self._attachment.device

    @property
    def where(self) -> str:
        """See `DeviceUse.where`."""
        one = self.device
        return f"port {self._attachment.port} of vhci_hcd, as {one.vendor_id:04x}:{one.product_id:04x}"

    async def ended(self) -> None:
        """See `DeviceUse.ended`.

        Raises:
            UsbError: as `Attachment.ended`.
        """
        await self._attachment.ended()

    async def detach(self) -> None:
        """See `DeviceUse.detach`.

        Raises:
            UsbError: as `Attachment.ended`.
        """
        await self._attachment.detach()


class LoopbackUse:
    """A device that another program on this host has imported from a port."""

    def __init__(self, port: int, lease: HeldLease, stream: ByteStream) -> None:
        self._port: Final = port
        self._carrying: Final = asyncio.create_task(_carried(KeptStream(lease.channel), stream))

    @property
    def where(self) -> str:
        """See `DeviceUse.where`."""
        return f"the USB/IP client that connected to 127.0.0.1:{self._port}"

    async def ended(self) -> None:
        """See `DeviceUse.ended`."""
        await asyncio.wait((self._carrying,))

    async def detach(self) -> None:
        """See `DeviceUse.detach`."""
        self._carrying.cancel()
        await asyncio.wait((self._carrying,))


async def _carried(channel: ByteStream, stream: ByteStream) -> None:
    await carry(channel, stream)


async def attach_here(lease: HeldLease, *, vhci: Vhci | None = None) -> AttachedUse:
    """Attach a lent device to this host.

    Raises:
        UsbError: `usb.no_vhci` and others, if this host cannot; `usb.export_busy` and others, if its agent cannot.
        UnavailableError: `usb.no_exporter`.
    """
    controller = vhci or Vhci()
    stream = KeptStream(lease.channel)
    device = await import_device(stream, lease.bus_id)
    origin = Origin(host="privyseal", service=lease.request_id[:16], bus_id=lease.bus_id)
    return AttachedUse(await attach(stream, device, origin=origin, vhci=controller))


async def offer_at_port(lease: HeldLease, port: int, offered: Callable[[int], None]) -> LoopbackUse:
    """Give a lent device to the first USB/IP client of this host that connects to a port, within ten seconds.

    Args:
        lease: The lease.
        port: Of 127.0.0.1; 0 for any that is free.
        offered: Told the port once it is open.

    Raises:
        UnavailableError: `usb.port_taken`, `usb.no_client`. UsbError: `device.taken_back`.
    """
    listener = LoopbackPort(port)
    number = listener.port
    accepting = asyncio.ensure_future(listener.accept())
    over = asyncio.ensure_future(lease.channel.finished())
    try:
        offered(number)
        await asyncio.wait((accepting, over), return_when=asyncio.FIRST_COMPLETED)
        if not accepting.done():
            raise UsbError("device.taken_back", "the lease ended before a USB/IP client connected")
        return LoopbackUse(number, lease, accepting.result())
    finally:
        over.cancel()
        if not accepting.done():
            accepting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await accepting
        listener.close()
