# SPDX-License-Identifier: Apache-2.0
"""How long one URB takes by our exporter, beside the virtual device's own server: `python bench/usb_urbs.py [URBS]`.

The token is virtual, the client a process of its own, and loopback between them: what is measured is what an exporter
adds. Prints figures and ratios.
"""

import asyncio
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import usbip

from lab.piv.ccid import BULK_IN, BULK_OUT, CcidToken
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.station import Station
from privyseal.usb.exporter import Exporter
from privyseal.usb.streams import SocketStream
from privyseal.usbip.importing import Importing
from privyseal.usbip.urb import Direction
from virtual_usb import VirtualBus

URBS = 3000
SLOT_STATUS = 0x65


class Client:
    """The plainest client: one URB after the other."""

    def __init__(self, port: int) -> None:
        self._machine = Importing()
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._machine.import_device("1-1")
        self._next()

    def _next(self) -> None:
        self._socket.sendall(self._machine.output())
        while self._machine.take() is None:
            self._machine.feed(self._socket.recv(65536))

    def control(self) -> None:
        setup = struct.pack("<BBHHH", 0x80, 6, 0x0100, 0, 18)
        self._machine.submit(Direction.IN, 0, 18, setup=setup)
        self._next()

    def command(self) -> None:
        """A command to the reader and its answer: two URBs."""
        self._machine.submit(Direction.OUT, BULK_OUT, struct.pack("<BIBBxxx", SLOT_STATUS, 0, 0, 0))
        self._next()
        self._machine.submit(Direction.IN, BULK_IN & 15, 3082)
        self._next()


def measured(port: int, urbs: int) -> None:
    client = Client(port)
    for name, transfer in (("control transfer", client.control), ("command and answer", client.command)):
        took = []
        for _ in range(urbs):
            began = time.perf_counter()
            transfer()
            took.append((time.perf_counter() - began) * 1000)
        took.sort()
        print(
            f"  {name}: median {statistics.median(took):.3f} ms, p95 {took[len(took) * 95 // 100]:.3f} ms", flush=True
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def by_our_exporter(keys: dict[int, CardKey], urbs: int) -> None:
    bus = VirtualBus()
    token = CcidToken(Station(keys, pin="123456"), bus)
    is_over = asyncio.Event()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        report = await Exporter(bus).serve(SocketStream(reader, writer))
        trips = report.statistics.round_trips
        print(f"  of which the device: median {trips.percentile_us(50) / 1000:.3f} ms", flush=True)
        is_over.set()

    server = await asyncio.start_server(session, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = await asyncio.create_subprocess_exec(sys.executable, __file__, str(urbs), str(port))
    await client.wait()
    server.close()
    await is_over.wait()
    token.unplug()


def main(urbs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        keys = load_or_make_keys(Path(folder), {0x9A: "p256"})
    print("our exporter")
    asyncio.run(by_our_exporter(keys, urbs))
    print("the virtual device's own server")
    port = free_port()
    token = CcidToken(Station(keys, pin="123456"), usbip.USBIP("127.0.0.1", port))
    subprocess.run([sys.executable, __file__, str(urbs), str(port)], check=True)
    token.unplug()


if __name__ == "__main__":
    count, *rest = (int(argument) for argument in sys.argv[1:]) if sys.argv[1:] else (URBS,)
    measured(rest[0], count) if rest else main(count)
