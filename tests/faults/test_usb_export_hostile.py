# SPDX-License-Identifier: Apache-2.0
"""Clients and devices that are frozen, vanish, never answer, or send what they should not, and an export."""

import asyncio
import errno
import random
import socket
from typing import Any

import pytest

from lab.piv.ccid import INTERRUPT_IN, CcidToken
from privyseal.usb.exporter import Deadlines, EndedBy
from privyseal.usb.ports import Done
from privyseal.usbip.exporting import Limits
from privyseal.usbip.urb import Direction, RetSubmit
from privyseal.usbip.wire import ImportRequest
from usb_client import GET_DESCRIPTOR, Client
from usbip_samples import CAPTURES, connections
from virtual_usb import VirtualBus, VirtualPort, exported

pytest_plugins = ["usb_export_fixtures"]


async def test_a_client_that_says_nothing(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus, deadlines=Deadlines(request=0.05))
    export.client.sendall(ImportRequest(bus_id="1-1").encode()[:20])

    assert (await export.report()).ended_by is EndedBy.CLIENT_STALLED
    export.client.close()


async def test_a_frozen_client_that_takes_no_answers(bus: VirtualBus, token: CcidToken) -> None:
    deadlines = Deadlines(write=1, cancel=0.3)
    export = await exported(bus, limits=Limits(urbs=4), deadlines=deadlines)
    export.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = await Client(export.client).imported()
    setup = bytes.fromhex("800600020000FFFF")

    async def flood() -> None:
        while True:
            for _ in range(500):
                client.machine.submit(Direction.IN, 0, 65535, setup=setup)
            await client.send()

    flooding = asyncio.create_task(flood())
    report = await export.report()
    flooding.cancel()
    await asyncio.wait({flooding})

    assert report.ended_by is EndedBy.CLIENT_STALLED
    assert report.was_reset
    assert export.exporter._machine.output_bytes < 400_000
    client.socket.close()


async def test_a_client_that_vanishes_with_urbs_in_flight(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    client = await Client(export.client).imported()
    client.ccid(0x62)
    client.read()
    client.machine.submit(Direction.IN, INTERRUPT_IN & 15, 8)
    await client.send()
    client.socket.close()

    report = await export.report()

    assert (report.ended_by, report.was_powered_off, report.was_reset) == (EndedBy.CLIENT, True, True)


async def test_an_exporter_that_is_cancelled_gives_the_device_back_first(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    await Client(export.client).imported()

    export.serving.cancel()
    await asyncio.sleep(0)
    export.serving.cancel()
    await asyncio.wait({export.serving})

    assert export.serving.cancelled()
    assert bus.log[-2:] == ["reset", "release"]
    export.client.close()


class Hostile(VirtualPort):
    """A device that answers more than it was asked, or twice, or what nobody asked."""

    def finish(self, urb: Any) -> None:
        tag = urb.seqnum
        self._open.pop(tag, None)
        self._on_done(Done(tag=10**6, status=0))
        self._on_done(Done(tag=tag, status=0, actual_length=10**6, data=bytes(10**6)))
        self._on_done(Done(tag=tag, status=0))


async def test_a_device_that_answers_too_much(bus: VirtualBus, token: CcidToken) -> None:
    bus.port_class = Hostile
    export = await exported(bus, deadlines=Deadlines(power_off=0.2))
    client = await Client(export.client).imported()
    client.machine.submit(Direction.IN, 0, 18, setup=GET_DESCRIPTOR)

    assert (await client.next()).status == -errno.ESHUTDOWN
    report = await export.report()
    assert (report.ended_by, report.was_reset) == (EndedBy.FAILURE, True)


class Deaf(VirtualPort):
    """A device that never answers, and lets go of nothing."""

    def submit(self, transfer: Any) -> None:
        return

    def cancel(self, tag: int) -> None:
        return


async def test_a_device_that_never_answers(bus: VirtualBus, token: CcidToken) -> None:
    bus.port_class = Deaf
    export = await exported(bus, deadlines=Deadlines(cancel=0.1, power_off=0.1))
    client = await Client(export.client).imported()
    asked = client.machine.submit(Direction.IN, 0, 18, setup=GET_DESCRIPTOR)
    await client.send()
    client.machine.unlink(asked)
    await client.send()
    client.socket.shutdown(socket.SHUT_WR)

    assert await client.next() == RetSubmit(seqnum=asked, status=-errno.ESHUTDOWN, actual_length=0)
    report = await export.report()
    assert (report.was_powered_off, report.was_reset) == (False, True)
    client.socket.close()


@pytest.mark.parametrize("seed", range(40))
async def test_hostile_streams(bus: VirtualBus, token: CcidToken, seed: int) -> None:
    chance = random.Random(seed)
    streams = [captured.from_client for path in CAPTURES for captured in connections(path)]
    stream = bytearray(chance.choice(streams))
    for _ in range(chance.randrange(1, 8)):
        place = chance.randrange(40, max(len(stream), 41))
        stream[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(6))
    export = await exported(bus, deadlines=Deadlines(request=0.2, cancel=0.2, power_off=0.3, write=1))
    loop = asyncio.get_running_loop()
    export.client.settimeout(0)
    while stream:
        size = chance.randrange(1, 200)
        try:
            await loop.sock_sendall(export.client, bytes(stream[:size]))
        except OSError:
            break
        del stream[:size]
        await asyncio.sleep(0)
    export.client.close()

    report = await export.report()

    assert report.ended_by in (EndedBy.CLIENT, EndedBy.CLIENT_ERROR, EndedBy.CLIENT_STALLED), report.reason
    assert report.was_reset is report.was_imported
