# SPDX-License-Identifier: Apache-2.0
"""A USB device that is held: what an exporter needs of it, whoever has it, the kernel or a test."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from privyseal.usbip.descriptors import Descriptors, EndpointKind
from privyseal.usbip.urb import NO_SETUP
from privyseal.usbip.wire import ListedDevice

__all__ = ["Done", "ExportableDevice", "HeldPort", "Transfer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One URB for a device.

    Attributes:
        tag: Names it until it is done; unique among those that are not.
        address: Of the endpoint; 0x80 and more for IN.
        kind: CONTROL, BULK or INTERRUPT.
        length: Size of the buffer, without the set-up packet.
        data: What goes out, `length` bytes; empty if data comes in.
        setup: Of a control transfer, 8 bytes.
        is_short_an_error: Whether less than `length` bytes coming in is an error.
        ends_with_empty_packet: Whether a bulk transfer out that fills its last packet is followed by an empty one.
    """

    tag: int
    address: int
    kind: EndpointKind
    length: int
    data: bytes = b""
    setup: bytes = NO_SETUP
    is_short_an_error: bool = False
    ends_with_empty_packet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A transfer is over.

    Attributes:
        tag: Of the transfer.
        status: 0 or a negative errno; -ENOENT or -ECONNRESET if it was cancelled.
        actual_length: How much went out or came in.
        data: What came in.
    """

    tag: int
    status: int
    actual_length: int = 0
    data: bytes = b""


class HeldPort(Protocol):
    """A device that nobody else on this host can use until it is given back. All calls are made in one event loop."""

    def submit(self, transfer: Transfer) -> None:
        """Begin a transfer; it is told when it is done.

        Raises:
            OSError: It is refused at once, and nothing more is told of it.
        """

    def cancel(self, tag: int) -> None:
        """Give a transfer up; it is told as done, cancelled or not. Nothing happens if it is done already."""

    async def set_interface(self, number: int, alternate: int) -> None:
        """Choose an alternate setting.

        Raises:
            OSError: The device or the kernel refused.
            UsbError: `usb.no_answer`, `usb.call_failed`.
        """

    async def clear_halt(self, address: int) -> None:
        """End the halt of an endpoint.

        Raises:
            OSError: The device or the kernel refused.
            UsbError: `usb.no_answer`, `usb.call_failed`.
        """

    async def give_back(self) -> None:
        """Reset the device, and let this host use it again; in bounded time, also when the device is gone.

        Nothing is told of transfers any more.

        Raises:
            OSError: The kernel refused; the device is not held any more.
            UsbError: `usb.no_answer`, `usb.call_failed`; likewise.
        """


class ExportableDevice(Protocol):
    """A device that can be held. Holding it is exclusive on this host."""

    @property
    def listed(self) -> ListedDevice:
        """As USB/IP describes it."""

    @property
    def descriptors(self) -> Descriptors:
        """What it says of itself."""

    async def hold(self, *, on_done: Callable[[Done], None], on_gone: Callable[[], None]) -> HeldPort:
        """Take it from this host's drivers and programs.

        Args:
            on_done: Called in the event loop for each transfer that is over.
            on_gone: Called once in the event loop when the device was unplugged.

        Raises:
            UsbError: `usb.in_use` if another program has it; `usb.denied`, `usb.hold_failed`, `usb.not_found`,
                `usb.no_answer`, `usb.call_failed`.
        """
