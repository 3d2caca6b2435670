# SPDX-License-Identifier: Apache-2.0
"""The export of a virtual token to a client that we did not write: it is listed, signs, ends, is given back."""

import asyncio
import errno
import random
import socket
import time

import pytest
import usbip
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from usbip.host import list_devices

from lab.piv.apdu import Ins
from lab.piv.ccid import BULK_IN, INTERRUPT_IN, PRODUCT, VENDOR, CcidToken
from lab.piv.keys import CardKey
from lab.piv.orders import Await, Fault, Release, Set
from lab.piv.tlv import decode, encode
from privyseal.errors import UsbError
from privyseal.usb.exporter import Deadlines, EndedBy
from privyseal.usbip.in_flight import Unlinked
from privyseal.usbip.urb import Direction, RetSubmit
from privyseal.usbip.wire import ImportAnswer, OpStatus
from usb_client import GET_DESCRIPTOR, SLOT, VERIFY, Client
from virtual_usb import SELECT, CcidHost, VirtualBus, exported, opened

pytest_plugins = ["usb_export_fixtures"]


async def test_a_stranger_lists_it(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)

    class Transport:
        def connect(self) -> socket.socket:
            return export.client

    (listed,) = await asyncio.to_thread(list_devices, Transport())

    assert (listed["busid"], listed["idVendor"], listed["interfaces"]) == ("1-1", VENDOR, [(11, 0, 0)])
    report = await export.report()
    assert (report.ended_by, report.was_imported, bus.holds) == (EndedBy.CLIENT, False, 0)


async def test_a_stranger_signs_through_it_and_the_card_is_off_afterwards(
    bus: VirtualBus, token: CcidToken, token_keys: dict[int, CardKey]
) -> None:
    export = await exported(bus)
    handle = await opened(export)
    assert (handle.device_descriptor.idVendor, handle.device_descriptor.idProduct) == (VENDOR, PRODUCT)

    def sign() -> bytes:
        host = CcidHost(handle)
        host.power_on()
        assert host.transmit(SELECT)[-2:] == b"\x90\0"
        assert host.transmit(VERIFY) == b"\x90\0"
        data = encode(0x7C, encode(0x82), encode(0x81, bytes(32)))
        answer = host.transmit(bytes((0, Ins.GENERAL_AUTHENTICATE, 0x11, SLOT, len(data))) + data + b"\0")
        assert answer[-2:] == b"\x90\0"
        return decode(decode(answer[:-2])[0x7C])[0x82]

    signature = await asyncio.to_thread(sign)
    handle.close()
    report = await export.report()

    public_key = token_keys[SLOT].private_key.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey)
    public_key.verify(signature, bytes(32), ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    assert (report.ended_by, report.was_powered_off, report.was_reset) == (EndedBy.CLIENT, True, True)
    assert bus.log[-4:] == ["submit 02", "submit 81", "reset", "release"]
    assert not token._is_on
    counted = report.statistics
    assert (counted.errors, counted.cancelled) == (0, 0)
    assert counted.urbs == counted.round_trips.count >= 10
    assert counted.bytes_in > 150
    assert 0 < counted.round_trips.percentile_us(50) <= counted.round_trips.percentile_us(99)


async def test_another_device_than_this_one_is_refused(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    client = Client(export.client)
    client.machine.import_device("1-2")

    assert await client.next() == ImportAnswer(status=OpStatus.NO_DEVICE)
    assert await client.next() is None
    assert (await export.report()).ended_by is EndedBy.CLIENT_ERROR


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsbError("usb.in_use", "another program of this host has 1-1"), OpStatus.BUSY),
        (UsbError("usb.hold_failed", "1-1 could not be taken"), OpStatus.DEVICE_ERROR),
    ],
)
async def test_a_device_that_cannot_be_held(
    bus: VirtualBus, token: CcidToken, error: UsbError, status: OpStatus
) -> None:
    bus.hold_error = error
    export = await exported(bus)
    client = Client(export.client)
    client.machine.import_device("1-1")

    assert await client.next() == ImportAnswer(status=status)
    report = await export.report()
    assert (report.ended_by, report.reason) == (EndedBy.NOT_HELD, str(error))


async def test_two_clients_at_once_have_it_one_after_the_other(bus: VirtualBus, token: CcidToken) -> None:
    first, second = await exported(bus), await exported(bus)
    held = await Client(first.client).imported()
    refused = Client(second.client)
    refused.machine.import_device("1-1")

    assert await refused.next() == ImportAnswer(status=OpStatus.BUSY)
    await second.report()
    held.socket.close()
    await first.report()
    third = await exported(bus)
    await Client(third.client).imported()
    third.exporter.end("the lease ended")
    assert (await third.report()).was_reset


async def test_the_end_of_a_lease_answers_what_is_in_flight_and_powers_off(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    client = await Client(export.client).imported()
    client.ccid(0x62)
    client.read()
    assert [(await client.next()).status for _ in range(2)] == [0, 0]
    waiting = client.machine.submit(Direction.IN, INTERRUPT_IN & 15, 8)
    reading = client.read()
    client.machine.submit(Direction.IN, 0, 18, setup=GET_DESCRIPTOR)
    await client.next()  # so that all of them have arrived

    export.exporter.end("the lease ended")

    answers = [await client.next() for _ in range(2)]
    assert {one.seqnum: one.status for one in answers} == {waiting: -errno.ESHUTDOWN, reading: -errno.ESHUTDOWN}
    assert await client.next() is None
    report = await export.report()
    assert (report.ended_by, report.reason) == (EndedBy.US, "the lease ended")
    assert (report.was_powered_off, report.was_reset, token._is_on) == (True, True, False)


async def test_a_card_in_the_midst_of_a_command_does_not_hold_the_end_up(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus, deadlines=Deadlines(power_off=0.2))
    client = await Client(export.client).imported()
    client.ccid(0x62)
    client.read()
    await client.next()
    await client.next()
    token.station.obey(Set(faults=(Fault(ins=Ins.SELECT, act="stall"),)))
    client.ccid(0x6F, SELECT)
    await client.next()
    await asyncio.to_thread(token.station.obey, Await(counter="stalls", at_least=1, seconds=10))

    began = time.monotonic()
    export.exporter.end("the lease ended")
    report = await export.report()

    assert (report.was_powered_off, report.was_reset) == (False, True)
    assert time.monotonic() - began < 3
    token.station.obey(Release())


async def test_answers_that_nobody_took_are_not_taken_for_the_cards_last(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    client = await Client(export.client).imported()
    for sequence in range(3):
        client.ccid(0x62 if sequence == 0 else 0x65, sequence=sequence)
        await client.next()
    export.exporter.end("the lease ended")

    report = await export.report()

    assert (report.was_powered_off, token._is_on) == (True, False)
    assert bus.log.count("submit 81") == 4


async def test_an_unplugged_token_ends_the_export(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    client = await Client(export.client).imported()
    reading = client.read()
    client.machine.submit(Direction.IN, 0, 18, setup=GET_DESCRIPTOR)
    await client.next()

    await asyncio.to_thread(token.unplug)

    assert await client.next() == RetSubmit(seqnum=reading, status=-errno.ESHUTDOWN, actual_length=0)
    assert await client.next() is None
    report = await export.report()
    assert (report.ended_by, report.was_reset, report.was_powered_off) == (EndedBy.DEVICE_GONE, False, None)
    assert isinstance(report.give_back_error, OSError)


async def test_an_urb_is_unlinked_before_and_after_it_is_done(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    client = await Client(export.client).imported()
    waiting = client.machine.submit(Direction.IN, INTERRUPT_IN & 15, 8)
    client.machine.unlink(waiting)
    assert await client.next() == Unlinked(seqnum=waiting, status=-errno.ECONNRESET, was_answered=False)

    done = client.machine.submit(Direction.IN, 0, 18, setup=GET_DESCRIPTOR)
    client.machine.unlink(done)
    arrived = [await client.next(), await client.next()]

    # The virtual device is done at once, and nothing of it is lost.
    assert [type(one) for one in arrived] == [RetSubmit, Unlinked]
    assert arrived[1] == Unlinked(seqnum=done, status=0, was_answered=True)
    client.socket.close()
    assert (await export.report()).statistics.cancelled == 1


async def test_unlinks_race_with_answers_and_every_urb_is_answered_once(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    client = await Client(export.client).imported()
    chance = random.Random(7)
    client.ccid(0x62)
    client.read()
    await client.next()
    await client.next()
    answered: list[int] = []
    for turn in range(200):
        client.ccid(0x65, sequence=turn % 256)
        reading = client.read()
        if chance.random() < 0.5:
            await client.send()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        client.machine.unlink(reading)
        while client.machine.in_flight or client.machine._in_flight.unlinked:
            arrived = await client.next()
            assert arrived is not None
            answered.append(arrived.seqnum)
    client.socket.close()
    report = await export.report()

    assert 0 < report.statistics.cancelled < 201
    assert (report.ended_by, report.was_reset) == (EndedBy.CLIENT, True)
    assert len(answered) == 200 + 200 + 200 - report.statistics.cancelled


async def test_requests_that_the_host_must_do_itself(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    client = await Client(export.client).imported()

    async def ask(setup: str) -> int:
        client.machine.submit(Direction.OUT, 0, b"", setup=bytes.fromhex(setup))
        return int((await client.next()).status)

    submitted = len(bus.log)
    assert await ask("0009010000000000") == 0, "SET_CONFIGURATION as it is"
    assert await ask("0009000000000000") == 0, "none, as a host says that lets go"
    assert await ask("0009020000000000") == -errno.EPIPE, "another one"
    assert await ask("0005070000000000") == -errno.EPIPE, "SET_ADDRESS"
    assert await ask("010B000000000000") == 0
    assert await ask("0201000081000000") == 0
    assert bus.log[submitted:] == ["set_interface 0 0", "clear_halt 81"]
    assert await ask("0009010000000100") == -errno.EINVAL, "more than there is"
    client.machine.submit(Direction.IN, 9, 64)
    assert (await client.next()).status == -errno.ENOENT
    client.socket.close()
    await export.report()


async def test_a_stall_reaches_the_client_and_is_cleared(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus)
    handle = await opened(export)

    def stalled() -> None:
        host = CcidHost(handle)
        host.power_on()
        token.stall_next()
        with pytest.raises(usbip.Stall):
            host.transmit(SELECT)
        handle.clear_halt(BULK_IN)
        assert bytes(handle.bulk_in(BULK_IN, 3082))[-2:] == b"\x90\0"
        handle.close()

    await asyncio.to_thread(stalled)
    report = await export.report()
    assert report.statistics.errors == 1
    assert "clear_halt 81" in bus.log
