# SPDX-License-Identifier: Apache-2.0
"""A device held through Linux's usbdevfs (include/uapi/linux/usbdevice_fs.h): one transfer is one URB of the kernel.

Submitting, reaping and discarding take the device's lock in the kernel for a moment, and are done in the event loop.
What holds that lock for long (a reset, a control transfer of the kernel's own) is done in a child process with a
deadline, and until it ends the event loop leaves the device alone.
"""

import asyncio
import collections
import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from privyseal.errors import UsbError
from privyseal.usb.aside import aside
from privyseal.usb.calls import CallError, HeldCalls, KernelHeldCalls
from privyseal.usb.devices import UsbDevice
from privyseal.usb.host import UsbHost, require_linux
from privyseal.usb.ports import Done, Transfer
from privyseal.usb.records import DescribedDevice, describe
from privyseal.usb.reset import denied
from privyseal.usbip.descriptors import Descriptors, EndpointKind
from privyseal.usbip.wire import ListedDevice

__all__ = ["HeldDevice", "KernelDevice", "UrbCalls", "kernel_device"]

_CLAIM_SECONDS: Final = 10.0
#: The kernel itself waits 5 s for a device's answer to a request of its own.
_SETTING_SECONDS: Final = 15.0
#: A device that does not answer after its reset is tried several times.
_GIVE_BACK_SECONDS: Final = 30.0
_SETUP_BYTES: Final = 8
_SHORT_NOT_OK: Final = 0x01
_ZERO_PACKET: Final = 0x40
_TYPES: Final = {EndpointKind.INTERRUPT: 1, EndpointKind.CONTROL: 2, EndpointKind.BULK: 3}


class _Urb(ctypes.Structure):
    """struct usbdevfs_urb."""

    _fields_ = (
        ("type", ctypes.c_ubyte),
        ("endpoint", ctypes.c_ubyte),
        ("status", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("buffer", ctypes.c_void_p),
        ("buffer_length", ctypes.c_int),
        ("actual_length", ctypes.c_int),
        ("start_frame", ctypes.c_int),
        ("number_of_packets", ctypes.c_int),
        ("error_count", ctypes.c_int),
        ("signr", ctypes.c_uint),
        ("usercontext", ctypes.c_void_p),
    )
    type: int
    endpoint: int
    status: int
    flags: int
    buffer: int
    buffer_length: int
    actual_length: int


_SUBMIT: Final = 2 << 30 | ctypes.sizeof(_Urb) << 16 | ord("U") << 8 | 10
_DISCARD: Final = ord("U") << 8 | 11
_REAP: Final = 1 << 30 | ctypes.sizeof(ctypes.c_void_p) << 16 | ord("U") << 8 | 13


class UrbCalls:
    """The ioctls that take the address of an URB, which the kernel keeps: `fcntl.ioctl` would hand it a copy."""

    def __init__(self) -> None:
        self._ioctl = ctypes.CDLL(None, use_errno=True).ioctl
        self._ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)

    def submit(self, descriptor: int, address: int) -> None:
        """USBDEVFS_SUBMITURB."""
        self._call(descriptor, _SUBMIT, address)

    def discard(self, descriptor: int, address: int) -> None:
        """USBDEVFS_DISCARDURB."""
        self._call(descriptor, _DISCARD, address)

    def reap(self, descriptor: int) -> int:
        """USBDEVFS_REAPURBNDELAY: the address of an URB that is over."""
        address = ctypes.c_void_p()
        self._call(descriptor, _REAP, ctypes.addressof(address))
        return address.value or 0

    def _call(self, descriptor: int, request: int, address: int) -> None:
        if self._ioctl(descriptor, request, address) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


class _InKernel:
    """A transfer with the memory that the kernel writes to until it is reaped."""

    __slots__ = ("address", "is_control", "memory", "transfer", "urb")

    def __init__(self, transfer: Transfer) -> None:
        self.transfer = transfer
        self.is_control = transfer.kind is EndpointKind.CONTROL
        head = transfer.setup if self.is_control else b""
        self.memory = ctypes.create_string_buffer(head + transfer.data, max(len(head) + transfer.length, 1))
        is_in = bool(transfer.address & 0x80)
        short = _SHORT_NOT_OK if transfer.is_short_an_error and is_in else 0
        is_bulk_out = transfer.kind is EndpointKind.BULK and not is_in
        self.urb = _Urb(
            type=_TYPES[transfer.kind],
            endpoint=transfer.address & 0x0F if self.is_control else transfer.address,
            flags=short | (_ZERO_PACKET if transfer.ends_with_empty_packet and is_bulk_out else 0),
            buffer=ctypes.addressof(self.memory),
            buffer_length=len(head) + transfer.length,
        )
        self.address = ctypes.addressof(self.urb)

    def done(self) -> Done:
        """What became of it, after it was reaped."""
        length = min(max(self.urb.actual_length, 0), self.transfer.length)
        start = _SETUP_BYTES if self.is_control else 0
        data = self.memory.raw[start : start + length] if self.transfer.address & 0x80 else b""
        return Done(tag=self.transfer.tag, status=self.urb.status, actual_length=length, data=data)


class HeldDevice:
    """A HeldPort of this host's kernel.

    Args:
        descriptor: The device's open node, with its interfaces claimed; owned from now on.
        interfaces: Their numbers.
        on_done: Told of each transfer that is over.
        on_gone: Told once that the device was unplugged.
        calls: What may take long.
        urbs: What does not.
    """

    def __init__(
        self,
        descriptor: int,
        interfaces: Sequence[int],
        *,
        on_done: Callable[[Done], None],
        on_gone: Callable[[], None],
        calls: HeldCalls,
        urbs: UrbCalls,
    ) -> None:
        self._descriptor = descriptor
        self._interfaces = tuple(interfaces)
        self._on_done, self._on_gone = on_done, on_gone
        self._calls, self._urbs = calls, urbs
        self._loop = asyncio.get_running_loop()
        self._by_tag: dict[int, _InKernel] = {}
        self._by_address: dict[int, _InKernel] = {}
        self._slow = asyncio.Lock()
        self._waiting: collections.deque[Transfer] = collections.deque()
        self._to_cancel: set[int] = set()
        self._is_gone = self._is_over = False
        # usbdevfs says "can be written" when an URB is over, and "error" when the device went.
        self._loop.add_writer(descriptor, self._reap)

    def submit(self, transfer: Transfer) -> None:
        """Begin a transfer; while a slow call runs, it waits for that."""
        if self._is_gone or self._is_over:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if self._slow.locked():
            self._waiting.append(transfer)
            return
        urb = _InKernel(transfer)
        self._urbs.submit(self._descriptor, urb.address)
        self._by_tag[transfer.tag] = self._by_address[urb.address] = urb

    def cancel(self, tag: int) -> None:
        """Give a transfer up."""
        if self._slow.locked():
            self._to_cancel.add(tag)
        elif (urb := self._by_tag.get(tag)) is not None:
            with contextlib.suppress(OSError):  # it is over, and will be reaped
                self._urbs.discard(self._descriptor, urb.address)

    async def set_interface(self, number: int, alternate: int) -> None:
        """Choose an alternate setting."""
        await self._slowly("set_interface", (number, alternate), _SETTING_SECONDS)

    async def clear_halt(self, address: int) -> None:
        """End the halt of an endpoint."""
        await self._slowly("clear_halt", (address,), _SETTING_SECONDS)

    async def give_back(self) -> None:
        """Reset the device, release it, close its node."""
        async with self._slow:
            if self._is_over:
                return
            self._is_over = True
            self._loop.remove_writer(self._descriptor)
            try:
                numbers = (self._descriptor, "give_back", self._interfaces)
                await self._calls.on_held(*numbers, seconds=_GIVE_BACK_SECONDS)
            finally:
                self._waiting.clear()
                await _close(self._descriptor)
                # The kernel is done with their memory only now.
                self._by_tag.clear()
                self._by_address.clear()

    async def _slowly(self, verb: str, numbers: Sequence[int], seconds: float) -> None:
        async with self._slow:
            if self._is_gone or self._is_over:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            self._loop.remove_writer(self._descriptor)
            try:
                await self._calls.on_held(self._descriptor, verb, numbers, seconds=seconds)
            finally:
                self._loop.add_writer(self._descriptor, self._reap)
                self._loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        """What was asked while the device was left alone."""
        if self._slow.locked() or self._is_over:  # another slow call came first, and will be followed by this again
            return
        waiting, self._waiting = self._waiting, collections.deque()
        cancelled, self._to_cancel = self._to_cancel, set()
        for transfer in waiting:
            try:
                self.submit(transfer)
            except OSError as error:
                self._on_done(Done(tag=transfer.tag, status=-(error.errno or errno.EIO)))
        for tag in cancelled:
            self.cancel(tag)

    def _reap(self) -> None:
        for _ in range(len(self._by_address) + 1):  # the others of this loop are to have their turn
            try:
                address = self._urbs.reap(self._descriptor)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EINTR):
                    self._lose()
                return
            urb = self._by_address.pop(address, None)
            if urb is not None:
                del self._by_tag[urb.transfer.tag]
                self._on_done(urb.done())

    def _lose(self) -> None:
        self._is_gone = True
        self._loop.remove_writer(self._descriptor)
        self._on_gone()


async def _close(descriptor: int) -> None:
    """Closing waits for the device's lock, too."""
    with contextlib.suppress(OSError, UsbError):
        await aside(lambda: os.close(descriptor))


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelDevice:
    """An ExportableDevice of this host; made by `kernel_device`.

    Attributes:
        device: As it was found.
        described: What it says of itself.
        calls, urbs: How the kernel is asked.
    """

    device: UsbDevice
    described: DescribedDevice
    calls: HeldCalls = field(default_factory=KernelHeldCalls)
    urbs: UrbCalls = field(default_factory=UrbCalls)

    @property
    def listed(self) -> ListedDevice:
        """As USB/IP describes it."""
        return self.described.listed

    @property
    def descriptors(self) -> Descriptors:
        """What it says of itself."""
        return self.described.descriptors

    async def hold(self, *, on_done: Callable[[Done], None], on_gone: Callable[[], None]) -> HeldDevice:
        """Open its node, and claim its interfaces from the drivers of the kernel, but not from another program."""
        require_linux()
        interfaces = self.described.configuration.numbers
        descriptor = -1
        try:
            flags = os.O_RDWR | os.O_CLOEXEC
            descriptor = await aside(lambda: os.open(self.device.node, flags), discard=os.close)
            await self.calls.on_held(descriptor, "claim", interfaces, seconds=_CLAIM_SECONDS)
            return HeldDevice(
                descriptor, interfaces, on_done=on_done, on_gone=on_gone, calls=self.calls, urbs=self.urbs
            )
        except BaseException as error:
            if descriptor >= 0:
                await _close(descriptor)
            if isinstance(error, OSError):
                raise _refused(self.device, error) from error
            raise


async def kernel_device(host: UsbHost, device: UsbDevice) -> KernelDevice:
    """A device of this host, ready to be exported.

    Raises:
        UsbError: `usb.not_found`, `usb.not_configured`, `usb.no_answer`.
        MalformedInputError: `usb.descriptors`.
    """
    return KernelDevice(device=device, described=await aside(lambda: describe(host.sysfs, device)))


def _refused(device: UsbDevice, error: OSError) -> UsbError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return denied(f"use {device}", device.node)
    if error.errno in (errno.ENOENT, errno.ENODEV):
        return UsbError("usb.not_found", f"{device} is gone", hint="look whether it is inserted and has power")
    if error.errno == errno.EBUSY and isinstance(error, CallError):
        return UsbError(
            "usb.in_use",
            f"another program of this host has {device}",
            hint="stop it (pcscd, mostly): a device is used here or exported, not both",
        )
    return UsbError(
        "usb.hold_failed",
        f"{device} could not be taken from this host's drivers: {error.strerror}",
        hint="look at `dmesg`; take it out and insert it again",
    )
