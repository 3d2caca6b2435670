# SPDX-License-Identifier: Apache-2.0
"""In the virtual machine: what the checks of a shared device do over and over."""

import asyncio
import hashlib
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from privyseal.usb.host import UsbHost
from privyseal.usb.vhci import Vhci
from privyseal.usbip.importing import Importing
from privyseal.usbip.urb import Direction, RetSubmit
from vm.guest import card
from vm.guest.checks import Evidence

READER, BUS_ID = "08e6:4433", "1-1.1"
TOKEN = "0529:0620"
DISK, DISK_BUS_ID = "46f4:0001", "1-2"
PORT, KERNELS_PORT = 3241, 3240
URBS = 300
host = UsbHost()


class Role:
    """A side of a shared device in a process of its own."""

    def __init__(self, *arguments: str, before: tuple[str, ...] = ()) -> None:
        roles = str(Path(__file__).parent / "sharing_roles.py")
        self.process = subprocess.Popen(
            [*before, sys.executable, roles, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    async def says(self) -> Any:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            line = await asyncio.to_thread(self.process.stdout.readline)
        return json.loads(line)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def ended(self) -> None:
        self.end()
        await asyncio.to_thread(self.process.wait, 60)


async def serving(bus_id: str = BUS_ID, *, before: tuple[str, ...] = ()) -> Role:
    role = Role("serve", bus_id, str(PORT), before=before)
    assert await role.says() == {"ready": True}
    return role


async def attached(address: str = "127.0.0.1", port: int = PORT, bus_id: str = BUS_ID) -> tuple[Role, Any]:
    role = Role("attach", address, str(port), bus_id)
    return role, await role.says()


def run(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    return done.stdout.decode(errors="replace")


async def signed(name: str, *, ignored: str = "no such reader", **options: str) -> Evidence:
    """Two signatures by a new pcscd, which is ended then; the second one's time is that of a reader that is known."""
    card.start_pcscd(ignored=ignored)
    try:
        first = await asyncio.to_thread(card.sign, name, **options)
        second = await asyncio.to_thread(card.sign, name, **options)
    finally:
        await asyncio.to_thread(card.stop_pcscd)
    return {"signature": first, "seconds": [first["seconds"], second["seconds"]]}


async def imported_device(ids: str) -> str:
    """Bus id of a device below the virtual controller, as soon as it is there."""
    async with asyncio.timeout(30):
        while True:
            for device in await host.devices():
                if device.is_imported and f"{device.vendor_id:04x}:{device.product_id:04x}" == ids:
                    return device.bus_id
            await asyncio.sleep(0.1)


def kernel_log() -> list[str]:
    return run("dmesg").splitlines()


def ports() -> list[int]:
    return [port.number for port in Vhci().ports() if not port.is_free]


async def reachable(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


async def timed(port: int) -> Evidence:
    """Control transfers one after the other, by the plainest client: what an exporter adds to each."""

    def work() -> list[float]:
        machine = Importing()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connected:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

            def next_one() -> object:
                connected.sendall(machine.output())
                while (arrived := machine.take()) is None:
                    machine.feed(connected.recv(65536))
                return arrived

            machine.import_device(BUS_ID)
            next_one()
            took = []
            for _ in range(URBS):
                began = time.perf_counter()
                machine.submit(Direction.IN, 0, 18, setup=struct.pack("<BBHHH", 0x80, 6, 0x0100, 0, 18))
                answer = next_one()
                took.append(time.perf_counter() - began)
                assert isinstance(answer, RetSubmit)
                assert len(answer.data) == 18
        return took

    took = await asyncio.to_thread(work)
    return {"median_ms": statistics.median(took) * 1000, "worst_ms": max(took) * 1000, "count": len(took)}


async def block_device(bus_id: str) -> Path:
    """Node of the disk that a USB device is, as soon as it is there and can be read."""
    async with asyncio.timeout(60):
        while True:
            found = list(Path(f"/sys/bus/usb/devices/{bus_id}").glob(f"{bus_id}:1.0/host*/target*/*/block/*/size"))
            if found and found[0].read_text().strip() != "0" and (node := Path("/dev") / found[0].parent.name).exists():
                return node
            await asyncio.sleep(0.1)


def driver_of(bus_id: str) -> str:
    link = Path(f"/sys/bus/usb/devices/{bus_id}/{bus_id}:1.0/driver")
    return link.readlink().name if link.exists() else ""


def digest(node: Path) -> str:
    with node.open("rb", buffering=0) as disk:
        os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(disk, "sha256").hexdigest()
