# SPDX-License-Identifier: Apache-2.0
"""A remote device attached to this host: its connection carried into the kernel's virtual controller, and out again.

The kernel gets one end of a pair of sockets; the other end is carried over a stream, whatever that is. When either ends
the port is detached here: the kernel itself would keep a device whose exporter is silent for hours.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from privyseal.errors import UnavailableError, UsbError
from privyseal.usb.aside import aside
from privyseal.usb.host import require_linux
from privyseal.usb.streams import ByteStream, CarryEnd, SocketStream, carry
from privyseal.usb.uevents import Changes, changes
from privyseal.usb.vhci import Origin, Vhci, not_detached
from privyseal.usbip.importing import Importing
from privyseal.usbip.passing import Passing
from privyseal.usbip.wire import DeviceRecord, ImportAnswer, OpStatus, malformed

__all__ = ["Attachment", "attach", "import_device"]

_ANSWER_SECONDS: Final = 15.0
#: Until the kernel's threads for a port have ended.
_FREE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.2


async def import_device(stream: ByteStream, bus_id: str, *, seconds: float = _ANSWER_SECONDS) -> DeviceRecord:
    """Ask an exporter for a device; URBs may follow in the stream then.

    Raises:
        UsbError: `usb.export_busy`, `usb.export_gone`, `usb.export_failed`.
        UnavailableError: `usb.no_exporter` if there is no answer.
        MalformedInputError: `usbip.malformed`.
        UnsupportedInputError: `usbip.version`.
    """
    machine = Importing()
    machine.import_device(bus_id)
    try:
        async with asyncio.timeout(seconds):
            await stream.write(machine.output())
            while (answer := machine.take()) is None:
                data = await stream.read()
                if not data:
                    raise ConnectionResetError("the connection was ended")
                machine.feed(data)
    except OSError as error:
        raise UnavailableError(
            "usb.no_exporter",
            f"no exporter answered for {bus_id}: {error.strerror or str(error) or 'not in time'}",
            hint="look whether the token's host runs, and try again",
        ) from error
    if isinstance(answer, ImportAnswer) and answer.device is not None:
        if answer.device.bus_id != bus_id or machine.rest():
            raise malformed(f"the exporter answers more than the import of {bus_id}")
        return answer.device
    raise _refused(bus_id, answer.status if isinstance(answer, ImportAnswer) else OpStatus.ERROR)


def _refused(bus_id: str, status: OpStatus) -> UsbError:
    if status is OpStatus.BUSY:
        return UsbError(
            "usb.export_busy",
            f"the device {bus_id} is in use by another host, or by a program of its own host",
            hint="wait until it is free; the token's host says who has it",
        )
    if status is OpStatus.NO_DEVICE:
        return UsbError(
            "usb.export_gone",
            f"the token's host has no device {bus_id}",
            hint="look whether the token is inserted there, and whether the bus id is right",
        )
    return UsbError(
        "usb.export_failed",
        f"the token's host refused the device {bus_id} with status {int(status)}",
        hint="its log says why",
    )


class Attachment:
    """An attached device; made by `attach`.

    Attributes:
        device: As its exporter describes it.
        port: Of the virtual controller.
    """

    def __init__(
        self,
        vhci: Vhci,
        device: DeviceRecord,
        port: int,
        *,
        origin: Origin,
        streams: tuple[ByteStream, ByteStream],
        passing: Passing,
        changes: Callable[[], Changes],
    ) -> None:
        self.device, self.port = device, port
        self._vhci, self._changes = vhci, changes
        self._origin, self._streams = origin, streams
        self._carrying = asyncio.create_task(carry(*streams, to_second=passing.answers, to_first=passing.commands))
        self._detaching = asyncio.create_task(self._detach())

    async def ended(self) -> CarryEnd:
        """Wait until it is over and detached: by the stream (`was_first`), or else by the kernel or `detach`.

        Raises:
            UsbError: `usb.denied`, `usb.detach_failed`, `usb.no_answer`.
        """
        await asyncio.shield(self._detaching)
        return CarryEnd(was_first=False) if self._carrying.cancelled() else self._carrying.result()

    async def detach(self) -> None:
        """Detach it, close its stream, and wait until the port is free.

        Raises:
            UsbError: As `ended` does.
        """
        self._carrying.cancel()
        await self.ended()

    async def _detach(self) -> None:
        await asyncio.wait({self._carrying})
        for stream in self._streams:  # a task that is cancelled before it began has closed none
            stream.close()
        loop = asyncio.get_running_loop()
        with contextlib.closing(self._changes()) as news:
            until = loop.time() + _FREE_SECONDS
            await aside(lambda: self._vhci.detach(self.port, self.device, self._origin))
            while not await aside(lambda: self._vhci.has_let_go(self.port, self.device)):
                if loop.time() > until:
                    raise not_detached(self.port, f"it is in use after {_FREE_SECONDS:g} s still")
                await news.wait(_LOOK_SECONDS)


async def attach(
    stream: ByteStream,
    device: DeviceRecord,
    *,
    origin: Origin,
    vhci: Vhci | None = None,
    changes: Callable[[], Changes] = changes,
) -> Attachment:
    """Attach a device that `import_device` has imported over this stream, which is carried from now on, and closed.

    What does not belong into the stream, either way, ends it (`Passing`): neither kernel has to judge the other.

    Raises:
        UsbError: `usb.not_linux`, `usb.no_vhci`, `usb.no_vhci_port`, `usb.denied`, `usb.attach_failed`,
            `usb.no_answer`. The stream is closed.
    """
    controller = vhci or Vhci()
    ours, kernels = socket.socketpair()
    try:
        require_linux()
        with kernels:
            port = await aside(lambda: controller.attach(device, kernels.fileno(), origin))
        local = await SocketStream.over(ours)
    except BaseException:
        ours.close()
        stream.close()
        raise
    return Attachment(
        controller,
        device,
        port,
        origin=origin,
        streams=(stream, local),
        passing=Passing(device.device_id),
        changes=changes,
    )
