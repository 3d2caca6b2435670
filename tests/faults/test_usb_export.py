# SPDX-License-Identifier: Apache-2.0
"""The export of a virtual token to a client that we did not write, and to clients that mean harm or leave badly."""

import asyncio
import errno
import random
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import usbip
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from usbip.host import list_devices

from lab.piv.apdu import Ins
from lab.piv.ccid import BULK_IN, BULK_OUT, INTERRUPT_IN, PRODUCT, VENDOR, CcidToken
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.orders import Await, Fault, Release, Set
from lab.piv.station import Station
from lab.piv.tlv import decode, encode
from lab.piv.vpcd import ATR
from privyseal.errors import UsbError
from privyseal.usb.exporter import Deadlines, EndedBy
from privyseal.usb.ports import Done
from privyseal.usb.tap import SessionEnd, TapAnswer
from privyseal.usbip.exporting import Limits
from privyseal.usbip.importing import Importing
from privyseal.usbip.in_flight import Unlinked
from privyseal.usbip.urb import Answer, CmdSubmit, Direction, RetSubmit
from privyseal.usbip.wire import ImportAnswer, ImportRequest, OpStatus
from usbip_samples import CAPTURES, connections
from virtual_usb import SELECT, CcidHost, VirtualBus, VirtualPort, exported, opened

PIN = "731946"
SLOT = 0x9A
VERIFY = bytes.fromhex("0020008008") + PIN.encode().ljust(8, b"\xff")
GET_DESCRIPTOR = bytes.fromhex("8006000100001200")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {SLOT: "p256"})


@pytest.fixture
def bus() -> VirtualBus:
    return VirtualBus()


@pytest.fixture
def token(bus: VirtualBus, keys: dict[int, CardKey]) -> Iterator[CcidToken]:
    token = CcidToken(Station(keys, pin=PIN), bus)
    yield token
    if bus.plugged is not None:
        token.unplug()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
async def nothing_is_left(bus: VirtualBus) -> AsyncIterator[None]:
    """Each session ends with its tasks, its sockets, and the device given back."""
    files = open_files()
    before = asyncio.all_tasks()
    yield
    for export in bus.exports:
        export.client.close()
        await asyncio.wait({export.serving}, timeout=20)
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    assert left == set()
    assert not bus.is_held
    assert open_files() <= files


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
    bus: VirtualBus, token: CcidToken, keys: dict[int, CardKey]
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

    public_key = keys[SLOT].private_key.public_key()
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


class Tap:
    """Records what passes; may answer or end it."""

    def __init__(self) -> None:
        self.seen: list[tuple[CmdSubmit, Answer | None]] = []
        self.own = 0
        self.answers: dict[bytes, TapAnswer] = {}
        self.ends_before: bytes | None = None
        self.ends_after: bytes | None = None
        self.error: Exception = SessionEnd("a second PIN attempt")

    def before(self, command: CmdSubmit) -> TapAnswer | None:
        self.seen.append((command, None))
        if self.ends_before is not None and self.ends_before in command.data:
            raise self.error
        return next((answer for part, answer in self.answers.items() if part in command.data), None)

    def after(self, command: CmdSubmit, answer: Answer, *, is_own: bool) -> None:
        self.seen.append((command, answer))
        self.own += is_own
        if isinstance(answer, RetSubmit) and self.ends_after is not None and self.ends_after in answer.data:
            raise self.error


async def test_a_tap_sees_everything_once_and_in_order(bus: VirtualBus, token: CcidToken) -> None:
    tap = Tap()
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    waiting = client.machine.submit(Direction.IN, INTERRUPT_IN & 15, 8)
    client.ccid(0x62)
    client.read()
    await client.next()
    await client.next()
    client.machine.unlink(waiting)
    await client.next()
    client.read()
    client.machine.submit(Direction.IN, 0, 18, setup=GET_DESCRIPTOR)
    await client.next()
    client.socket.close()
    await export.report()

    told = [(command.address, type(answer).__name__) for command, answer in tap.seen]
    assert told == [
        (0x83, "NoneType"),
        (0x02, "NoneType"),
        (0x81, "NoneType"),
        (0x02, "RetSubmit"),
        (0x81, "RetSubmit"),
        (0x83, "RetUnlink"),
        (0x81, "NoneType"),
        (0x80, "NoneType"),
        (0x80, "RetSubmit"),
        (0x81, "RetSubmit"),
    ]
    assert isinstance(tap.seen[4][1], RetSubmit)
    assert tap.seen[4][1].data[0] == 0x80


async def test_a_tap_answers_in_the_devices_place(bus: VirtualBus, token: CcidToken) -> None:
    tap = Tap()
    tap.answers[SELECT] = TapAnswer(status=-errno.EPERM)
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    client.ccid(0x6F, SELECT)

    assert (await client.next()).status == -errno.EPERM
    assert "submit 02" not in bus.log
    client.socket.close()
    assert (await export.report()).statistics.answered_by_tap == 1


REFUSED = bytes.fromhex("80 02000000 00 05 00 00 00 6982")


def refusing_select() -> Tap:
    """Keeps SELECT from the card, and lets the client read that it was refused."""
    tap = Tap()
    tap.answers[SELECT] = TapAnswer(status=0, read_next=REFUSED, read_next_address=BULK_IN)
    return tap


@pytest.mark.parametrize("order", ["command, read", "read, command"])
async def test_a_tap_lets_the_client_read_a_refusal(bus: VirtualBus, token: CcidToken, order: str) -> None:
    tap = refusing_select()
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    reads = []
    for part in order.split(", "):
        if part == "read":
            reads.append(client.read())
        else:
            client.ccid(0x6F, SELECT)
    answers = {one.seqnum: one for one in (await client.next(), await client.next())}

    assert answers[reads[0]] == RetSubmit(seqnum=reads[0], status=0, actual_length=12, data=REFUSED)
    assert all(one.status == 0 for one in answers.values())
    assert (token.station.state.commands, tap.own) == ((), 2)
    # What follows is the reader's own again.
    client.ccid(0x65, sequence=9)
    last = client.read()
    answers = {one.seqnum: one for one in (await client.next(), await client.next())}
    assert answers[last].data[6] == 9
    client.socket.close()
    assert (await export.report()).was_powered_off


async def test_a_refusal_is_read_in_parts_by_small_reads(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus, tap=refusing_select())
    client = await Client(export.client).imported()
    small = [client.machine.submit(Direction.IN, BULK_IN & 15, 5) for _ in range(3)]
    client.ccid(0x6F, SELECT)
    answers = {one.seqnum: one for one in [await client.next() for _ in range(4)]}

    assert b"".join(answers[seqnum].data for seqnum in small) == REFUSED
    client.socket.close()
    await export.report()


async def test_a_refusal_waits_for_what_the_reader_had_said_already(bus: VirtualBus, token: CcidToken) -> None:
    export = await exported(bus, tap=refusing_select())
    client = await Client(export.client).imported()
    for turn in range(50):
        first, second = client.read(), client.read()
        client.ccid(0x65, sequence=turn)
        await client.send()
        for _ in range(turn % 5):
            await asyncio.sleep(0)
        client.ccid(0x6F, SELECT)
        answers = {one.seqnum: one for one in [await client.next() for _ in range(4)]}
        read = [answers[first].data, answers[second].data]
        assert sorted(map(len, read)) == [10, 12]
        assert REFUSED in read
    client.socket.close()
    await export.report()


class Partial(VirtualPort):
    """A device that has begun to answer when it is asked to give a transfer up."""

    def _withdraw(self, tag: int) -> bool:
        if super()._withdraw(tag):
            del self._open[tag]
            done = Done(tag=tag, status=-errno.ENOENT, actual_length=5, data=b"begun")
            self.loop.call_soon(self._on_done, done)
        return False


async def test_a_refusal_waits_for_what_the_reader_has_begun_to_say(bus: VirtualBus, token: CcidToken) -> None:
    bus.port_class = Partial
    export = await exported(bus, tap=refusing_select())
    client = await Client(export.client).imported()
    first = client.read()
    client.ccid(0x6F, SELECT)
    answers = {one.seqnum: one for one in (await client.next(), await client.next())}
    second = client.read()

    assert answers[first] == RetSubmit(seqnum=first, status=0, actual_length=5, data=b"begun")
    assert await client.next() == RetSubmit(seqnum=second, status=0, actual_length=12, data=REFUSED)
    client.socket.close()
    await export.report()


async def test_a_read_that_is_unlinked_as_a_refusal_comes_leaves_it_to_the_next(
    bus: VirtualBus, token: CcidToken
) -> None:
    export = await exported(bus, tap=refusing_select())
    client = await Client(export.client).imported()
    first = client.read()
    client.machine.unlink(first)
    client.ccid(0x6F, SELECT)
    arrived = [await client.next(), await client.next()]
    assert Unlinked(seqnum=first, status=-errno.ECONNRESET, was_answered=False) in arrived

    again = client.read()

    assert await client.next() == RetSubmit(seqnum=again, status=0, actual_length=12, data=REFUSED)
    client.socket.close()
    await export.report()


@pytest.mark.parametrize("error", [SessionEnd("a second PIN attempt"), ZeroDivisionError("a bug")])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_tap_ends_the_export_and_nothing_passes_unseen(
    bus: VirtualBus, token: CcidToken, moment: str, error: Exception
) -> None:
    tap = Tap()
    tap.error = error
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    client.ccid(0x62)
    client.read()
    await client.next()
    await client.next()
    if moment == "before":
        tap.ends_before = SELECT
    else:
        tap.ends_after = bytes.fromhex("61114F06")
    client.ccid(0x6F, SELECT)
    client.read()

    arrived = [one for one in [await client.next(), await client.next(), await client.next()] if one is not None]

    assert [one.status for one in arrived][-1] == -errno.ESHUTDOWN
    assert all(one.data == b"" for one in arrived)
    report = await export.report()
    assert report.ended_by is (EndedBy.TAP if isinstance(error, SessionEnd) else EndedBy.FAILURE)
    assert str(error) in report.reason
    assert (report.was_powered_off, report.was_reset, token._is_on) == (True, True, False)
    assert token.station.state.commands == () if moment == "before" else True


async def test_the_last_answer_that_a_tap_allows_still_reaches_the_client(bus: VirtualBus, token: CcidToken) -> None:
    tap = Tap()
    tap.error = SessionEnd("operations used up", with_answer=True)
    tap.ends_after = ATR
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    client.ccid(0x62)
    reading = client.read()
    answers = {one.seqnum: one for one in (await client.next(), await client.next())}

    assert answers[reading].data[10:] == ATR
    assert await client.next() is None
    report = await export.report()
    assert (report.ended_by, report.reason) == (EndedBy.TAP, "operations used up")
    assert (report.was_powered_off, report.was_reset) == (True, True)


async def test_an_answer_of_a_tap_that_does_not_fit_ends_the_export(bus: VirtualBus, token: CcidToken) -> None:
    tap = Tap()
    tap.answers[b""] = TapAnswer(status=0, data=bytes(19))
    export = await exported(bus, tap=tap)
    client = await Client(export.client).imported()
    client.machine.submit(Direction.IN, 0, 18, setup=GET_DESCRIPTOR)

    assert (await client.next()).status == -errno.ESHUTDOWN
    assert (await export.report()).ended_by is EndedBy.FAILURE


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
