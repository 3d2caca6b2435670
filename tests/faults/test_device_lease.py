# SPDX-License-Identifier: Apache-2.0
"""A virtual token lent to a client that we did not write: how its lease begins, what is counted, how it ends."""

import asyncio
import errno
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import usbip
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from structlog.testing import capture_logs

from lab.piv.apdu import Ins
from lab.piv.ccid import CcidToken
from lab.piv.keys import CardKey, load_or_make_keys
from lab.piv.station import Station
from lab.piv.tlv import encode
from privyseal.agent.device_config import DeviceTable
from privyseal.agent.lending import DeviceLender, LenderParts
from privyseal.agent.outbox import Outbox
from privyseal.agent.served import Borrower
from privyseal.errors import UnavailableError, UsbError, VerificationError
from privyseal.formats.usb import LeaseOrder
from privyseal.identity.channel import AgentPins, ChannelUse, new_channel_key, seal_secret
from privyseal.storage.journal import SqliteJournal
from privyseal.tlog.entry import Lease, parse_entry
from privyseal.usb.streams import SocketStream
from privyseal.wire.leases import LeaseReport, read_report
from virtual_usb import SELECT, CcidHost, OneSocket, VirtualBus, VirtualPort

PIN = "731946"
SLOT = 0x9A
VERIFY = bytes.fromhex("0020008008") + PIN.encode().ljust(8, b"\xff")
WRONG_PIN = bytes.fromhex("0020008008") + b"000000\xff\xff"
GENERATE = bytes.fromhex("0047009A05AC03800111")
SIGN_DATA = encode(0x7C, encode(0x82), encode(0x81, bytes(32)))
SIGN = bytes((0, Ins.GENERAL_AUTHENTICATE, 0x11, SLOT, len(SIGN_DATA))) + SIGN_DATA + b"\0"
REQUEST, KEY = "ab" * 32, "one"
Make = Callable[..., "Desk"]


class Holder(SocketStream):
    """The agent's end of the channel, without the keys."""

    lost = ""
    round_trip_seconds: float | None = 0.002

    async def notice(self, code: str, text: str) -> None:
        self.notices = [*getattr(self, "notices", []), code]

    async def end(self, code: str, text: str, summary: bytes = b"") -> None:
        self.said = (code, summary)


@dataclass
class Desk:
    """The agent's side of a lease, and the socket of who holds it."""

    bus: VirtualBus
    journal: SqliteJournal
    table: DeviceTable
    sealing_key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    parked: list[str] = field(default_factory=list)
    holder: Holder | None = None
    met: list[AgentPins] = field(default_factory=list)
    comes: bool = True

    def __post_init__(self) -> None:
        ours, self.client = socket.socketpair()
        self.client.settimeout(15)
        self._ours = ours
        parts = LenderParts(
            agent="pi",
            hub="hub.example",
            sealing_key=self.sealing_key,
            journal=self.journal,
            outbox=Outbox(journal=self.journal, clock=lambda: 5, request_key=b"a" * 32),
            find=self._find,
            meet=self._meet,
        )
        self.lender = DeviceLender(self.table, parts, self._park)

    async def _find(self, table: DeviceTable) -> tuple[str, Any]:
        if self.bus.plugged is None:
            raise UsbError("usb.not_found", f"no USB device fits {table.usb}")
        return "0529:0620:VT0001", self.bus

    async def _meet(self, pins: AgentPins, *, seconds: float, grace_seconds: float) -> Holder:
        self.met.append(pins)
        if not self.comes:
            raise UnavailableError("channel.no_client", f"nobody came within {seconds:g} s")
        self.holder = Holder(*await asyncio.open_connection(sock=self._ours))
        return self.holder

    @asynccontextmanager
    async def _park(self) -> AsyncIterator[None]:
        self.parked.append("parked")
        assert not self.bus.is_held
        yield
        assert not self.bus.is_held, "given back before anybody else may use it"
        self.parked.append("free")

    def close(self) -> None:
        self.client.close()
        self._ours.close()

    def borrower(self, *, device: str = "ev-usb", seconds: int = 600, **use: Any) -> Borrower:
        tls_key = hashlib.sha256(new_channel_key().certificate).digest()
        fields = {"hub": "hub.example", "agent": "pi", "device": device, "idempotency_key": KEY, "tls_key": tls_key}
        _, sealed = seal_secret(self.sealing_key.public_key().public_bytes_raw(), ChannelUse(**(fields | use)))
        order = LeaseOrder(
            device=device, seconds=seconds, reason="initialise", tls_key=tls_key.hex(), sealed=sealed.hex()
        )
        return Borrower(request=REQUEST, idempotency_key=KEY, order=order)

    async def opened(self) -> Any:
        return await asyncio.to_thread(usbip.open, busid="1-1", transport=OneSocket(self.client))

    async def lease(self, use: Callable[[Any], None] | None = None, **order: Any) -> LeaseReport:
        """Borrow it, use it in a thread, hand it back."""
        lending = asyncio.create_task(self.lender.lend(self.borrower(**order)))
        handle = await self.opened()
        try:
            if use is not None:
                await asyncio.to_thread(use, handle)
        finally:
            self.client.close()
        async with asyncio.timeout(20):
            return read_report(await lending)

    async def entries(self) -> list[Lease]:
        found = [parse_entry(one.entry) for one in await self.journal.events(100)]
        return [one for one in found if isinstance(one, Lease)]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CardKey]:
    return load_or_make_keys(tmp_path_factory.mktemp("keys"), {SLOT: "p256"})


@pytest.fixture
def bus(keys: dict[int, CardKey]) -> Iterator[VirtualBus]:
    bus = VirtualBus()
    token = CcidToken(Station(keys, pin=PIN), bus)
    yield bus
    if bus.plugged is not None:
        token.unplug()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[SqliteJournal]:
    opened = await SqliteJournal.open(tmp_path / "journal.db", origin="hub.example")
    yield opened
    await opened.close()


@pytest.fixture
def desk(bus: VirtualBus, journal: SqliteJournal) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(**table: Any) -> Desk:
        made.append(Desk(bus=bus, journal=journal, table=DeviceTable(name="ev-usb", usb="0529:0620", **table)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def sign_twice(handle: Any) -> None:
    host = CcidHost(handle)
    host.power_on()
    assert host.transmit(SELECT)[-2:] == b"\x90\0"
    assert host.transmit(VERIFY) == b"\x90\0"
    for _ in range(2):
        assert host.transmit(SIGN)[-2:] == b"\x90\0"


async def test_a_lease_counts_what_the_key_was_used_for(desk: Make, bus: VirtualBus, journal: SqliteJournal) -> None:
    site = desk()
    report = await site.lease(sign_twice)

    assert report.total("private-key-operation", "ok") == 2
    assert report.total("pin-verification", "accepted") == 1
    assert (report.unproven, report.ended_by, report.clean) == ((), "holder", True)
    assert site.parked == ["parked", "free"]
    assert bus.log[-2:] == ["reset", "release"]
    (entry,) = await site.entries()
    assert (entry.request, entry.device, entry.operations, entry.pins) == (REQUEST, "ev-usb", 2, 1)
    assert site.holder is not None
    code, summary = site.holder.said
    assert (code, read_report(summary)) == ("lease.holder", report)


async def test_the_next_holder_finds_no_pin_state(desk: Make, bus: VirtualBus, journal: SqliteJournal) -> None:
    """The fence between leases: promise 7, and DESIGN §8."""
    await desk().lease(sign_twice)

    def without_pin(handle: Any) -> None:
        host = CcidHost(handle)
        host.power_on()
        assert host.transmit(SELECT)[-2:] == b"\x90\0"
        assert host.transmit(SIGN) == b"\x69\x82", "security status not satisfied"

    report = await desk().lease(without_pin)
    assert report.total("private-key-operation", "ok") == 0
    assert report.total("private-key-operation", "refused") == 1


async def test_no_pin_gets_into_report_log_or_entry(desk: Make, bus: VirtualBus, journal: SqliteJournal) -> None:
    site = desk()
    with capture_logs() as logs:
        report = await site.lease(sign_twice)
    events = [one.entry for one in await journal.events(100)]
    told = json.dumps(logs, default=str) + repr(report) + repr(events)
    for spelling in (PIN, PIN.encode().hex(), VERIFY.hex()):
        assert spelling not in told


async def test_a_lease_ends_after_the_operations_that_it_allows(
    desk: Make, bus: VirtualBus, journal: SqliteJournal
) -> None:
    def sign(handle: Any) -> None:
        sign_twice(handle)
        with pytest.raises(usbip.USBError):
            CcidHost(handle).transmit(SIGN)

    report = await desk(operations=2).lease(sign)
    assert (report.ended_by, report.total("private-key-operation", "ok")) == ("rules", 2)


async def test_a_lease_ends_at_the_first_refused_pin(desk: Make, bus: VirtualBus, journal: SqliteJournal) -> None:
    def guess(handle: Any) -> None:
        host = CcidHost(handle)
        host.power_on()
        host.transmit(SELECT)
        assert host.transmit(WRONG_PIN)[:1] == b"\x63"
        with pytest.raises(usbip.USBError):
            host.transmit(WRONG_PIN)

    report = await desk(end_at_refused_pin=True).lease(guess)
    assert (report.ended_by, report.total("pin-verification", "refused")) == ("rules", 1)


async def test_a_refused_class_of_commands_never_reaches_the_card(
    desk: Make, bus: VirtualBus, journal: SqliteJournal
) -> None:
    def generate(handle: Any) -> None:
        host = CcidHost(handle)
        host.power_on()
        host.transmit(SELECT)
        assert host.transmit(GENERATE) == b"\x69\x82"
        assert host.transmit(VERIFY) == b"\x90\0", "it goes on behind it"

    report = await desk(refuse=("key-generation",)).lease(generate)
    assert (report.refused, report.total("key-generation", "ok")) == (1, 0)
    assert report.total("pin-verification", "accepted") == 1


async def test_a_lease_ends_when_its_time_is_over(desk: Make, bus: VirtualBus, journal: SqliteJournal) -> None:
    site = desk(minutes=0.005)
    lending = asyncio.create_task(site.lender.lend(site.borrower()))
    await site.opened()
    report = read_report(await lending)
    assert (report.ended_by, report.clean) == ("time", True)
    assert 250 <= report.held_ms < 5_000


async def test_a_holder_is_asked_to_finish_and_has_so_long(desk: Make, bus: VirtualBus, journal: SqliteJournal) -> None:
    site = desk(finish_seconds=0.2)
    lending = asyncio.create_task(site.lender.lend(site.borrower()))
    await site.opened()
    site.lender.recall(("cd" * 32,), asks=True)
    site.lender.recall((REQUEST,), asks=True)
    report = read_report(await lending)
    assert report.ended_by == "taken"
    assert site.holder is not None
    assert site.holder.notices == ["lease-ready", "lease-finish"]


async def test_a_lease_that_is_asked_back_ends_at_once(desk: Make, bus: VirtualBus, journal: SqliteJournal) -> None:
    site = desk()
    lending = asyncio.create_task(site.lender.lend(site.borrower()))
    await site.opened()
    assert site.lender.holder == REQUEST
    site.lender.recall((REQUEST,), asks=False)
    assert read_report(await lending).ended_by == "taken"
    assert site.lender.holder == ""


@pytest.mark.parametrize("field", ["agent", "device", "hub", "idempotency_key", "tls_key"])
async def test_an_order_that_was_sealed_for_something_else_is_refused(desk: Make, bus: VirtualBus, field: str) -> None:
    site = desk()
    other: Any = bytes(32) if field == "tls_key" else "other"
    borrower = site.borrower()
    _, sealed = seal_secret(
        site.sealing_key.public_key().public_bytes_raw(),
        ChannelUse(
            **(
                {
                    "hub": "hub.example",
                    "agent": "pi",
                    "device": "ev-usb",
                    "idempotency_key": KEY,
                    "tls_key": bytes.fromhex(borrower.order.tls_key),
                }
                | {field: other}
            )
        ),
    )
    order = LeaseOrder(device="ev-usb", seconds=5, reason="", tls_key=borrower.order.tls_key, sealed=sealed.hex())
    with pytest.raises(VerificationError, match=r"sealed\.closed"):
        await site.lender.lend(Borrower(request=REQUEST, idempotency_key=KEY, order=order))
    assert (site.met, site.parked, bus.holds) == ([], [], 0)


async def test_nobody_is_waited_for_with_the_token_parked(desk: Make, bus: VirtualBus, journal: SqliteJournal) -> None:
    site = desk()
    site.comes = False
    with pytest.raises(UnavailableError, match=r"channel\.no_client"):
        await site.lender.lend(site.borrower())
    assert (site.parked, bus.holds, await site.entries()) == ([], 0, [])


async def test_a_device_that_another_program_has_is_not_lent(
    desk: Make, bus: VirtualBus, journal: SqliteJournal
) -> None:
    site = desk()
    bus.hold_error = UsbError("usb.in_use", "another program of this host has 1-1")
    lending = asyncio.create_task(site.lender.lend(site.borrower()))
    with pytest.raises(usbip.USBError):
        await site.opened()
    with pytest.raises(UsbError, match=r"usb\.not_lent"):
        await lending
    assert site.parked == ["parked", "free"]


async def test_a_device_that_is_pulled_out_ends_its_lease(desk: Make, bus: VirtualBus, journal: SqliteJournal) -> None:
    site = desk()
    lending = asyncio.create_task(site.lender.lend(site.borrower()))
    await site.opened()
    bus.stop()
    report = read_report(await lending)
    assert (report.ended_by, report.clean) == ("gone", False)


class StuckPort(VirtualPort):
    """A port that cannot be reset."""

    async def give_back(self) -> None:
        await super().give_back()
        raise OSError(errno.EIO, "the port does not answer")


async def test_a_device_that_was_not_reset_goes_to_nobody(desk: Make, bus: VirtualBus) -> None:
    """The fence: whoever comes next finds nothing of the last holder, or gets no device."""
    bus.port_class = StuckPort
    report = await desk().lease(sign_twice)
    assert not report.clean

    second = desk()
    with pytest.raises(UsbError, match=r"usb\.not_clean"):
        await second.lender.lend(second.borrower())
    bus.port_class = VirtualPort
    assert (await desk().lease()).clean


async def test_a_device_that_was_lent_when_the_agent_was_killed_is_reset_first(
    desk: Make, bus: VirtualBus, journal: SqliteJournal
) -> None:
    killed = desk()
    lending = asyncio.create_task(killed.lender.lend(killed.borrower()))
    await killed.opened()
    assert await journal.recall("device ev-usb") == b"lent", "durable before the first URB"
    killed.lender.recall((REQUEST,), asks=False)
    await lending
    assert await journal.recall("device ev-usb") == b"free"

    await journal.remember("device ev-usb", b"lent")  # as a killed agent leaves it
    bus.log.clear()
    await desk().lease(sign_twice)
    assert bus.log[:3] == ["claim", "reset", "release"]
    assert bus.log.count("reset") == 2
