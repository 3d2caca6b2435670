# SPDX-License-Identifier: Apache-2.0
"""Remote devices attached where the kernel's controller is described by files, and carried to a stock client."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import usbip

from described_vhci import DescribedVhci
from lab.piv.ccid import VENDOR, CcidToken
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.station import Station
from privyseal.errors import MalformedInputError, UnavailableError, UsbError
from privyseal.usb.attach import Attachment, attach, import_device
from privyseal.usb.exporter import EndedBy, Exporter, SessionReport
from privyseal.usb.loopback import LoopbackPort
from privyseal.usb.streams import SocketStream, carry
from privyseal.usb.vhci import Origin, parse_status
from privyseal.usbip.urb import CmdSubmit, Direction, RetSubmit, RetUnlink
from privyseal.usbip.wire import DeviceRecord, ImportAnswer, OpStatus, Speed
from virtual_usb import CcidHost, OneSocket, VirtualBus

ORIGIN = Origin(host="token-host", service="8443", bus_id="1-1")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {0x9A: "p256"})


@pytest.fixture
def bus(keys: dict[int, CardKey]) -> Iterator[VirtualBus]:
    bus = VirtualBus()
    token = CcidToken(Station(keys, pin="731946"), bus)
    yield bus
    token.unplug()


@pytest.fixture
def kernel(tmp_path: Path) -> DescribedVhci:
    return DescribedVhci(tmp_path)


async def exporting(bus: VirtualBus) -> tuple[SocketStream, "asyncio.Task[SessionReport]"]:
    """A stream to an exporter, and its report."""
    near, far = socket.socketpair()
    exporter = Exporter(bus)
    return await SocketStream.over(near), asyncio.create_task(exporter.serve(await SocketStream.over(far)))


@pytest.fixture
async def attached(
    bus: VirtualBus, kernel: DescribedVhci
) -> AsyncIterator[tuple[Attachment, "asyncio.Task[SessionReport]"]]:
    stream, report = await exporting(bus)
    device = await import_device(stream, "1-1")
    attachment = await attach(stream, device, origin=ORIGIN, vhci=kernel.vhci)
    yield attachment, report
    await attachment.detach()
    await asyncio.wait({report})


Attached = tuple[Attachment, "asyncio.Task[SessionReport]"]


async def test_the_kernels_urbs_reach_the_device(kernel: DescribedVhci, attached: Attached) -> None:
    attachment, report = attached
    assert kernel.attached == [f"0 {kernel.attached[0].split()[1]} {0x10002} 2"]
    assert (kernel.records / "port0").read_text() == "token-host 8443 1-1\n"
    assert (kernel.records / "port0").stat().st_mode & 0o777 == 0o600
    kernels = kernel.sockets[0]
    kernels.settimeout(0)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(kernels, ASKED.encode())
    answer = b""
    while len(answer) < 48 + 18:
        answer += await loop.sock_recv(kernels, 1000)

    assert (answer[:8], answer[56:60]) == (bytes.fromhex("0000000300000007"), bytes.fromhex("29052006"))

    await attachment.detach()
    assert (await report).ended_by is EndedBy.CLIENT
    assert not (await attachment.ended()).was_first
    assert list(kernel.records.iterdir()) == []
    assert kernel.ports[0][1] == 4


async def test_a_lost_exporter_detaches_the_port(kernel: DescribedVhci, attached: Attached) -> None:
    attachment, report = attached
    report.cancel()
    await asyncio.wait({report})

    assert (await attachment.ended()).was_first, "the stream ended"
    assert kernel.ports[0][1] == 4
    assert list(kernel.records.iterdir()) == []


async def test_a_kernel_that_detached_by_itself_ends_the_export(kernel: DescribedVhci, attached: Attached) -> None:
    attachment, report = attached
    kernel.let_go(0)

    assert not (await attachment.ended()).was_first
    assert (await report).was_reset
    assert kernel.attached[1:] == []
    assert list(kernel.records.iterdir()) == []


async def test_a_port_that_another_device_has_is_left_alone(kernel: DescribedVhci, attached: Attached) -> None:
    attachment, _ = attached
    kernel.let_go(0)
    kernel.take(0)
    (kernel.records / "port0").write_text("another-host 3240 1-5\n")

    await attachment.ended()

    assert kernel.ports[0][1] == 6
    assert (kernel.records / "port0").exists()


def record(speed: Speed) -> DeviceRecord:
    return DeviceRecord(
        path="/sys/devices/1-1",
        bus_id="1-1",
        bus_number=1,
        device_number=2,
        speed=speed,
        vendor_id=1,
        product_id=2,
        device_version=0,
        device_class=0,
        subclass=0,
        protocol=0,
        configuration_value=1,
        configurations=1,
        interfaces=1,
    )


@pytest.mark.parametrize(
    ("speed", "taken", "busy", "port"),
    [
        (Speed.FULL, (), 0, 0),
        (Speed.HIGH, (0,), 0, 1),
        (Speed.LOW, (0, 1), 0, 4),
        (Speed.SUPER, (), 0, 2),
        (Speed.SUPER_PLUS, (2, 3), 0, 6),
        (Speed.FULL, (), 1, 1),
    ],
)
def test_a_free_port_of_the_right_speed(
    kernel: DescribedVhci, speed: Speed, taken: tuple[int, ...], busy: int, port: int
) -> None:
    for number in taken:
        kernel.take(number)
    kernel.errors["attach"] = [errno.EBUSY] * busy
    near, far = socket.socketpair()
    with near, far:
        assert kernel.vhci.attach(record(speed), far.fileno(), ORIGIN) == port
    kernel.let_go(port)


@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, "usb.denied"), (errno.EINVAL, "usb.attach_failed")])
async def test_a_kernel_that_refuses(kernel: DescribedVhci, bus: VirtualBus, number: int, code: str) -> None:
    kernel.errors["attach"] = [number]
    stream, report = await exporting(bus)
    device = await import_device(stream, "1-1")

    with pytest.raises(UsbError) as caught:
        await attach(stream, device, origin=ORIGIN, vhci=kernel.vhci)

    assert caught.value.code == code
    assert (await report).was_reset, "the stream was closed"


def test_no_port_and_no_controller(kernel: DescribedVhci, tmp_path: Path) -> None:
    for number in kernel.ports:
        kernel.take(number)
    with pytest.raises(UsbError, match="no port") as full:
        kernel.vhci.attach(record(Speed.FULL), 0, ORIGIN)
    (tmp_path / "other").mkdir()
    other = DescribedVhci(tmp_path / "other")
    (other.folder / "status").unlink()
    with pytest.raises(UsbError, match="no virtual USB controller") as none:
        other.vhci.ports()
    assert (full.value.code, none.value.code) == ("usb.no_vhci_port", "usb.no_vhci")


async def test_a_port_that_does_not_let_go_is_told(kernel: DescribedVhci, bus: VirtualBus) -> None:
    stream, report = await exporting(bus)
    device = await import_device(stream, "1-1")
    attachment = await attach(stream, device, origin=ORIGIN, vhci=kernel.vhci)
    kernel.errors["detach"] = [errno.EIO]

    with pytest.raises(UsbError, match="does not let go") as caught:
        await attachment.detach()

    assert caught.value.code == "usb.detach_failed"
    await report
    kernel.let_go(0)


def test_an_origin_is_three_words() -> None:
    assert str(Origin(host="a b\n", service="", bus_id="1-1")) == "? ? 1-1"


def test_a_table_of_another_form() -> None:
    assert parse_status(b"") == parse_status(b"hub port\nhs x y z\n" + b"\xff" * 5000) == ()
    assert len(parse_status(b"hs  0000 004 000 00000000 000000 0-0\n" * 5000)) <= 1025


class Script:
    """A stream that says what was written down."""

    def __init__(self, *parts: bytes) -> None:
        self.parts, self.sent, self.is_closed = list(parts), b"", False

    async def read(self) -> bytes:
        return self.parts.pop(0) if self.parts else b""

    async def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (OpStatus.BUSY, "usb.export_busy"),
        (OpStatus.NO_DEVICE, "usb.export_gone"),
        (OpStatus.DEVICE_ERROR, "usb.export_failed"),
        (OpStatus.NOT_AVAILABLE, "usb.export_failed"),
    ],
)
async def test_refusals_of_an_exporter(status: OpStatus, code: str) -> None:
    with pytest.raises(UsbError) as caught:
        await import_device(Script(ImportAnswer(status=status).encode()), "1-1")

    assert caught.value.code == code


async def test_an_exporter_that_ends_is_silent_or_speaks_something_else() -> None:
    with pytest.raises(UnavailableError, match="was ended") as ended:
        await import_device(Script(b"\1"), "1-1")
    near, far = socket.socketpair()
    stream = await SocketStream.over(near)
    with pytest.raises(UnavailableError, match="not in time") as silent:
        await import_device(stream, "1-1", seconds=0.05)
    stream.close()
    far.close()
    with pytest.raises(MalformedInputError):
        await import_device(Script(b"\1\x11\0\5" + bytes(8)), "1-1")

    assert ended.value.code == silent.value.code == "usb.no_exporter"


@pytest.mark.parametrize(
    "answer",
    [
        ImportAnswer(device=record(Speed.FULL)).encode() + b"behind",
        ImportAnswer(device=replace(record(Speed.FULL), bus_id="1-2")).encode(),
    ],
)
async def test_an_exporter_that_answers_more_than_it_was_asked(answer: bytes) -> None:
    with pytest.raises(MalformedInputError, match="answers more than the import of 1-1"):
        await import_device(Script(answer), "1-1")


SETUP = bytes.fromhex("8006000100001200")
ASKED = CmdSubmit(seqnum=7, device_id=0x10002, direction=Direction.IN, endpoint=0, length=18, setup=SETUP)


@pytest.mark.parametrize(
    "answer",
    [
        RetSubmit(seqnum=8, status=0, actual_length=0),
        RetSubmit(seqnum=7, status=0, actual_length=19, data=bytes(19)),
        RetUnlink(seqnum=7, status=0),
        ASKED,
    ],
)
async def test_a_hostile_exporter_does_not_reach_the_kernel(
    kernel: DescribedVhci, answer: RetSubmit | RetUnlink | CmdSubmit
) -> None:
    near, far = socket.socketpair()
    attachment = await attach(await SocketStream.over(near), record(Speed.FULL), origin=ORIGIN, vhci=kernel.vhci)
    kernels, loop = kernel.sockets[0], asyncio.get_running_loop()
    kernels.settimeout(0)
    far.settimeout(0)
    await loop.sock_sendall(kernels, ASKED.encode())
    assert await loop.sock_recv(far, 1000) == ASKED.encode()

    await loop.sock_sendall(far, answer.encode())

    end = await attachment.ended()
    assert end.was_first
    assert isinstance(end.error, MalformedInputError)
    assert kernel.ports[0][1] == 4
    assert await loop.sock_recv(far, 1000) == b""
    far.close()


async def test_a_hostile_importer_does_not_reach_the_exporter(kernel: DescribedVhci, attached: Attached) -> None:
    attachment, report = attached
    await asyncio.get_running_loop().sock_sendall(kernel.sockets[0], b"\1" * 48)

    end = await attachment.ended()

    assert not end.was_first
    assert isinstance(end.error, MalformedInputError)
    assert (await report).ended_by is EndedBy.CLIENT


async def test_a_stock_client_at_the_loopback_port(bus: VirtualBus) -> None:
    port = LoopbackPort()
    waiting = asyncio.create_task(port.accept())
    connecting = asyncio.create_task(asyncio.to_thread(socket.create_connection, ("127.0.0.1", port.port)))
    client = await waiting
    stream, report = await exporting(bus)
    carrying = asyncio.create_task(carry(client, stream))
    connected = await connecting
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(socket.create_connection, ("127.0.0.1", int(connected.getpeername()[1])))

    def use() -> None:
        handle = usbip.open(busid="1-1", transport=OneSocket(connected))
        assert handle.device_descriptor.idVendor == VENDOR
        CcidHost(handle).power_on()
        handle.close()

    await asyncio.to_thread(use)
    assert (await carrying).was_first, "the client ended"
    assert (await report).was_powered_off


async def test_a_loopback_port_at_which_nobody_calls() -> None:
    port = LoopbackPort()
    number = port.port
    with pytest.raises(UnavailableError, match="no USB/IP client connected") as caught:
        await port.accept(seconds=0.05)
    assert caught.value.code == "usb.no_client"

    again = LoopbackPort(number)
    with pytest.raises(UnavailableError) as taken:
        LoopbackPort(number)
    again.close()
    assert taken.value.code == "usb.port_taken"
