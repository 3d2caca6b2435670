# SPDX-License-Identifier: Apache-2.0
"""A USB/IP client of our own state machine, for tests of what strangers' clients do not do."""

import asyncio
import socket
import struct
from typing import Any

from lab.piv.ccid import BULK_IN, BULK_OUT
from privyseal.usbip.importing import Importing
from privyseal.usbip.urb import Direction
from privyseal.usbip.wire import ImportAnswer

__all__ = ["GET_DESCRIPTOR", "PIN", "SLOT", "VERIFY", "Client"]

PIN = "731946"
SLOT = 0x9A
VERIFY = bytes.fromhex("0020008008") + PIN.encode().ljust(8, b"\xff")
GET_DESCRIPTOR = bytes.fromhex("8006000100001200")


class Client:
    """Our own state machine as a client, without waiting for anything that was not asked for."""

    def __init__(self, connected: socket.socket) -> None:
        connected.settimeout(0)
        self.socket, self.machine = connected, Importing()

    async def send(self) -> None:
        if output := self.machine.output():
            await asyncio.get_running_loop().sock_sendall(self.socket, output)

    async def next(self) -> Any:
        """What arrives next; None at the end."""
        await self.send()
        async with asyncio.timeout(15):
            while (arrived := self.machine.take()) is None:
                data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
                if not data:
                    return None
                self.machine.feed(data)
        return arrived

    async def imported(self) -> "Client":
        self.machine.import_device("1-1")
        answer = await self.next()
        assert isinstance(answer, ImportAnswer)
        assert answer.device is not None
        return self

    def ccid(self, kind: int, data: bytes = b"", sequence: int = 0) -> None:
        message = struct.pack("<BIBBxxx", kind, len(data), 0, sequence) + data
        self.machine.submit(Direction.OUT, BULK_OUT, message)

    def read(self) -> int:
        return self.machine.submit(Direction.IN, BULK_IN & 15, 3082)
