# SPDX-License-Identifier: Apache-2.0
"""A held device where the kernel is described: which URBs it gets, and what happens while it must be left alone."""

import asyncio
import contextlib
import ctypes
import errno
import os
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from privyseal.errors import MalformedInputError, UsbError
from privyseal.usb.calls import CallError, KernelHeldCalls
from privyseal.usb.devices import scan
from privyseal.usb.host import UsbHost
from privyseal.usb.ports import Done, Transfer
from privyseal.usb.records import describe
from privyseal.usb.usbdevfs import HeldDevice, KernelDevice, UrbCalls, _Urb, kernel_device
from privyseal.usbip.descriptors import EndpointKind
from privyseal.usbip.wire import Speed
from usb_tree import UsbTree

DESCRIPTORS = bytes.fromhex(
    "120100020000004029052006000101020301"  # device
    "09025d00010100803209040000030b000000"  # configuration, interface
    "07050202400000070581024000000705830308000a"
)  # fmt: skip


class UsbfsKernel(UrbCalls):
    """URBs in a kernel that does as it is told; its open node can be written to once an URB is over."""

    def __init__(self) -> None:
        self._other, self.node = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.urbs: dict[int, _Urb] = {}
        self.over: deque[int] = deque()
        self.refusal = 0
        self.is_unplugged = False
        self._fill()

    def _fill(self) -> None:
        try:
            while True:
                os.write(self.node, bytes(65536))
        except BlockingIOError:
            return

    def submit(self, descriptor: int, address: int) -> None:
        if self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))
        self.urbs[address] = _Urb.from_address(address)

    def discard(self, descriptor: int, address: int) -> None:
        if address not in self.urbs:
            raise OSError(errno.EINVAL, "not there")
        self.end(address, -errno.ENOENT)

    def reap(self, descriptor: int) -> int:
        if self.over:
            return self.over.popleft()
        if self.is_unplugged:
            raise OSError(errno.ENODEV, "no device")
        self._fill()
        raise OSError(errno.EAGAIN, "none is over")

    def end(self, address: int, status: int, data: bytes = b"", length: int = 0) -> None:
        urb = self.urbs.pop(address)
        start = 8 if urb.type == 2 else 0
        ctypes.memmove(urb.buffer + start, data, len(data))
        urb.status, urb.actual_length = status, length or len(data)
        self.over.append(address)
        self._tell()

    def memory(self, address: int) -> bytes:
        urb = self.urbs[address]
        return ctypes.string_at(urb.buffer, urb.buffer_length)

    def unplug(self) -> None:
        self.is_unplugged = True
        self._tell()

    def close(self) -> None:
        os.close(self._other)

    def _tell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._other, 1 << 20)


class Calls:
    """What may take long, until the test lets it end."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.error: Exception | None = None

    async def on_held(self, descriptor: int, verb: str, numbers: Sequence[int], *, seconds: float) -> None:
        self.asked.append((verb, tuple(numbers)))
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error


class Held:
    def __init__(self) -> None:
        self.kernel, self.calls = UsbfsKernel(), Calls()
        self.done: asyncio.Queue[Done] = asyncio.Queue()
        self.gone: asyncio.Queue[None] = asyncio.Queue()
        self.device = HeldDevice(
            self.kernel.node,
            (0,),
            on_done=self.done.put_nowait,
            on_gone=lambda: self.gone.put_nowait(None),
            calls=self.calls,
            urbs=self.kernel,
        )

    async def next(self) -> Done:
        async with asyncio.timeout(5):
            return await self.done.get()


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    made = Held()
    yield made
    made.calls.goes_on.set()
    made.calls.error = None
    await made.device.give_back()
    made.kernel.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def read(tag: int, *, length: int = 64) -> Transfer:
    return Transfer(tag=tag, address=0x81, kind=EndpointKind.BULK, length=length)


async def test_each_kind_of_transfer_as_the_kernel_gets_it(held: Held) -> None:
    setup = bytes.fromhex("8006000100001200")
    held.device.submit(read(1))
    held.device.submit(Transfer(tag=2, address=0x02, kind=EndpointKind.BULK, length=3, data=b"abc"))
    held.device.submit(Transfer(tag=3, address=0x83, kind=EndpointKind.INTERRUPT, length=8))
    held.device.submit(Transfer(tag=4, address=0x80, kind=EndpointKind.CONTROL, length=18, setup=setup))

    urbs = list(held.kernel.urbs.values())
    assert [(urb.type, urb.endpoint, urb.buffer_length, urb.flags) for urb in urbs] == [
        (3, 0x81, 64, 0),
        (3, 0x02, 3, 0),
        (1, 0x83, 8, 0),
        (2, 0x00, 26, 0),
    ]
    into, out, _, control = held.kernel.urbs
    assert (held.kernel.memory(out), held.kernel.memory(control)[:8]) == (b"abc", setup)

    held.kernel.end(control, 0, data=b"descriptor")
    held.kernel.end(out, 0, length=3)
    held.kernel.end(into, -errno.EPIPE, data=b"x")
    assert [await held.next() for _ in range(3)] == [
        Done(tag=4, status=0, actual_length=10, data=b"descriptor"),
        Done(tag=2, status=0, actual_length=3),
        Done(tag=1, status=-errno.EPIPE, actual_length=1, data=b"x"),
    ]


async def test_flags(held: Held) -> None:
    for tag, address, kind in (
        (1, 0x81, EndpointKind.BULK),
        (2, 0x02, EndpointKind.BULK),
        (3, 0x83, EndpointKind.INTERRUPT),
    ):
        held.device.submit(
            Transfer(tag=tag, address=address, kind=kind, length=0, is_short_an_error=True, ends_with_empty_packet=True)
        )

    assert [urb.flags for urb in held.kernel.urbs.values()] == [0x01, 0x40, 0x01]


async def test_a_kernel_that_tells_more_than_there_is(held: Held) -> None:
    held.device.submit(read(1, length=4))
    (address,) = held.kernel.urbs
    held.kernel.end(address, 0, data=b"four", length=2**31 - 1)

    assert await held.next() == Done(tag=1, status=0, actual_length=4, data=b"four")


async def test_a_refused_transfer_is_told_at_once_and_only_then(held: Held) -> None:
    held.kernel.refusal = errno.ENOMEM
    with pytest.raises(OSError, match="memory") as caught:
        held.device.submit(read(1))

    assert caught.value.errno == errno.ENOMEM
    held.kernel.refusal = 0
    held.device.submit(read(1))
    held.device.cancel(1)
    assert (await held.next()).status == -errno.ENOENT
    held.device.cancel(1)
    assert held.done.empty()


async def test_the_device_is_left_alone_while_a_slow_call_runs(held: Held) -> None:
    held.device.submit(read(1))
    held.calls.goes_on.clear()
    slow = asyncio.create_task(held.device.set_interface(0, 1))
    await asyncio.sleep(0)
    held.device.submit(read(2))
    held.device.submit(read(3))
    held.device.cancel(1)
    held.device.cancel(3)
    assert len(held.kernel.urbs) == 1

    held.calls.goes_on.set()
    await slow

    assert {(done.tag, done.status) for done in (await held.next(), await held.next())} == {
        (1, -errno.ENOENT),
        (3, -errno.ENOENT),
    }
    assert held.calls.asked == [("set_interface", (0, 1))]
    (address,) = held.kernel.urbs
    held.kernel.end(address, 0, data=b"later")
    assert await held.next() == Done(tag=2, status=0, actual_length=5, data=b"later")


async def test_a_slow_call_that_fails_and_a_transfer_that_waited_and_is_refused(held: Held) -> None:
    held.calls.goes_on.clear()
    held.calls.error = CallError(errno.EPIPE, "clear_halt")
    slow = asyncio.create_task(held.device.clear_halt(0x81))
    await asyncio.sleep(0)
    held.device.submit(read(1))
    held.kernel.refusal = errno.ENODEV
    held.calls.goes_on.set()

    with pytest.raises(CallError):
        await slow
    assert await held.next() == Done(tag=1, status=-errno.ENODEV)


async def test_an_unplugged_device_is_told_once_after_its_transfers(held: Held) -> None:
    held.device.submit(read(1))
    (address,) = held.kernel.urbs
    held.kernel.end(address, -errno.ESHUTDOWN)
    held.kernel.unplug()

    assert (await held.next()).status == -errno.ESHUTDOWN
    async with asyncio.timeout(5):
        await held.gone.get()
    with pytest.raises(OSError, match="No such device"):
        held.device.submit(read(2))
    with pytest.raises(OSError, match="No such device"):
        await held.device.set_interface(0, 0)
    assert held.gone.empty()


async def test_it_is_given_back_once_whatever_the_kernel_says(held: Held) -> None:
    held.device.submit(read(1))
    held.calls.error = CallError(errno.EIO, "give_back")
    with pytest.raises(CallError):
        await held.device.give_back()
    await held.device.give_back()

    assert held.calls.asked == [("give_back", (0,))]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(held.kernel.node)
    with pytest.raises(OSError, match="No such device"):
        held.device.submit(read(2))


@pytest.mark.parametrize("verb", ["claim", "give_back", "set_interface", "clear_halt"])
async def test_what_no_usb_device_is_refuses_each_call(verb: str, tmp_path: Path) -> None:
    numbers = (0, 1) if verb == "set_interface" else (0,)
    with (tmp_path / "file").open("w") as file, pytest.raises(CallError) as caught:
        await KernelHeldCalls().on_held(file.fileno(), verb, numbers, seconds=20)

    assert (caught.value.errno, caught.value.step) == (errno.ENOTTY, verb)


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    tree = UsbTree(tmp_path)
    place = tree.attach("1-1.4")
    (place / "descriptors").write_bytes(DESCRIPTORS)
    (place / "speed").write_text("12\n")
    (place / "bConfigurationValue").write_text("1\n")
    return tree


def test_a_device_as_importers_see_it(tree: UsbTree) -> None:
    (device,) = scan(tree.sysfs, tree.nodes)
    described = describe(tree.sysfs, device)

    record = described.listed.device
    assert (record.bus_id, record.bus_number, record.device_number, record.speed) == ("1-1.4", 1, 5, Speed.FULL)
    assert (record.vendor_id, record.product_id, record.device_version) == (0x0529, 0x0620, 0x0100)
    assert (record.configuration_value, record.configurations, record.interfaces) == (1, 1, 1)
    assert [one.interface_class for one in described.listed.interfaces] == [0x0B]
    assert described.listed.device.encode()
    assert described.configuration.numbers == (0,)


@pytest.mark.parametrize("value", ["", "2\n", "\n"])
def test_a_device_without_a_configuration(tree: UsbTree, value: str) -> None:
    (device,) = scan(tree.sysfs, tree.nodes)
    (tree.sysfs / "1-1.4" / "bConfigurationValue").write_text(value)

    with pytest.raises(UsbError, match="no configuration") as caught:
        describe(tree.sysfs, device)

    assert caught.value.code == "usb.not_configured"


def test_a_device_that_went_and_one_that_lies(tree: UsbTree) -> None:
    (device,) = scan(tree.sysfs, tree.nodes)
    (tree.sysfs / "1-1.4" / "descriptors").write_bytes(b"\0" * 18)
    with pytest.raises(MalformedInputError):
        describe(tree.sysfs, device)
    tree.detach("1-1.4")
    with pytest.raises(UsbError, match="is gone"):
        describe(tree.sysfs, device)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CallError(errno.EBUSY, "claim"), "usb.in_use"),
        (CallError(errno.EIO, "claim"), "usb.hold_failed"),
        (CallError(errno.ENODEV, "claim"), "usb.not_found"),
        (CallError(errno.EPERM, "claim"), "usb.denied"),
    ],
)
async def test_a_device_that_cannot_be_held(tree: UsbTree, error: Exception, code: str) -> None:
    calls = Calls()
    calls.error = error
    (device,) = scan(tree.sysfs, tree.nodes)
    described = (await kernel_device(UsbHost(sysfs=tree.sysfs, nodes=tree.nodes), device)).described
    files = open_files()

    with pytest.raises(UsbError) as caught:
        await KernelDevice(device=device, described=described, calls=calls).hold(
            on_done=lambda _: None, on_gone=lambda: None
        )

    assert caught.value.code == code
    assert calls.asked == [("claim", (0,))]
    assert open_files() == files


async def test_a_node_that_is_gone_or_closed(tree: UsbTree) -> None:
    (device,) = scan(tree.sysfs, tree.nodes)
    found = await kernel_device(UsbHost(sysfs=tree.sysfs, nodes=tree.nodes), device)
    device.node.unlink()

    with pytest.raises(UsbError) as caught:
        await found.hold(on_done=lambda _: None, on_gone=lambda: None)

    assert caught.value.code == "usb.not_found"
