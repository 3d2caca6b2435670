# SPDX-License-Identifier: Apache-2.0
"""A USB device in a client's hands, for the length of its lease.

The client is met first, by the keys that its signed order names; only then the token is parked and the device taken
from this host. At the end (the holder's, the time's, or when it is asked back) the exporter switches the card off,
resets the device and gives it back: the next holder, and the token's own module, find nothing of the last one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from privyseal.agent.device_config import DeviceTable
from privyseal.agent.lease_report import ended_by, lease_entry, lease_report
from privyseal.agent.outbox import Outbox
from privyseal.agent.served import Borrower
from privyseal.errors import UsbError
from privyseal.identity.channel import AgentPins, ChannelUse, new_channel_key, open_secret
from privyseal.ports.journal import AgentJournal
from privyseal.usb.card_tap import CardTap
from privyseal.usb.catalogue import Catalogue
from privyseal.usb.exporter import EndedBy, Exporter
from privyseal.usb.host import UsbHost
from privyseal.usb.ports import ExportableDevice
from privyseal.usb.streams import ByteStream, KeptStream
from privyseal.usb.usbdevfs import kernel_device
from privyseal.usbip.card_events import CardEvent
from privyseal.wire.leases import LeaseReport, encode_report

__all__ = ["DeviceLender", "Holder", "LenderParts", "Meet", "find_device"]

_LOG: Final = structlog.get_logger("privyseal.agent.lease")
#: The client has seen that its turn has come, and dials.
_MEET_SECONDS: Final = 10.0
_LENT, _FREE = b"lent", b"free"
_FINISH: Final = "lease-finish"
_MAX_REASON: Final = 300
#: Tells the holder the bus id under which it has to ask for the device: exporting has begun.
_READY: Final = "lease-ready"


class Holder(ByteStream, Protocol):
    """The channel to who holds the device (`privyseal.relay.channel.Channel`)."""

    @property
    def lost(self) -> str:
        """Why it is gone although it did not say so; empty if it is not."""
        ...

    @property
    def round_trip_seconds(self) -> float | None:
        """Of half of the heartbeats."""
        ...

    async def notice(self, code: str, text: str) -> None:
        """Tell it something, for people."""
        ...

    async def end(self, code: str, text: str, summary: bytes = b"") -> None:
        """Say that the lease is over."""
        ...


class Meet(Protocol):
    """Meets a client."""

    async def __call__(self, pins: AgentPins, *, seconds: float, grace_seconds: float) -> Holder:
        """The channel to it.

        Raises:
            UnavailableError: `channel.no_client`.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LenderParts:
    """What all lenders of an agent share.

    Attributes:
        agent: Its name.
        hub: That of its hub, as the trust bundle has it.
        sealing_key: What clients seal their secrets to.
        journal: Where it is known, also after a crash, that a device was lent and not reset since.
        find: The device that a table means, ready to be exported.
        meet: Meets clients.
    """

    agent: str
    hub: str
    sealing_key: X25519PrivateKey
    journal: AgentJournal
    outbox: Outbox
    find: Callable[[DeviceTable], Awaitable[tuple[str, ExportableDevice]]]
    meet: Meet


@dataclass(slots=True, kw_only=True)
class _Lease:
    """The lease that runs."""

    borrower: Borrower
    over: asyncio.Event = field(default_factory=asyncio.Event)
    holder: Holder | None = None
    exporter: Exporter | None = None
    #: Why it was ended from here, and in words; empty while it was not.
    cause: str = ""
    reason: str = ""
    notices: set["asyncio.Task[None]"] = field(default_factory=set)

    def end(self, cause: str, reason: str) -> None:
        if not self.cause:
            self.cause, self.reason = cause, reason
            self.over.set()
            if self.exporter is not None:
                self.exporter.end(reason)


class DeviceLender:
    """A `Lender` of one device of agent.toml."""

    def __init__(
        self, table: DeviceTable, parts: LenderParts, parked: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        """`parked`: within it nobody on this host uses the device as a token."""
        self._table: Final = table
        self._parts: Final = parts
        self._parked: Final = parked
        self._lease: _Lease | None = None

    @property
    def holder(self) -> str:
        """Id of the request that has the device now; empty if none has."""
        return "" if self._lease is None else self._lease.borrower.request

    async def lend(self, borrower: Borrower) -> bytes:
        """See `Lender.lend`.

        Raises:
            VerificationError: `sealed.closed` if the order was for another agent, device or request.
            UnavailableError: `channel.no_client` if its client does not come.
            UsbError: the device is not there, is used by another program, or is not to be lent.
        """
        self._lease = lease = _Lease(borrower=borrower)
        try:
            return await self._lend(lease)
        finally:
            self._lease = None

    def recall(self, requests: Sequence[str], *, asks: bool, reason: str = "") -> None:
        """See `Lender.recall`."""
        lease = self._lease
        if lease is None or (requests and lease.borrower.request not in requests):
            return
        if not asks:
            lease.end("taken", f"it was asked back: {reason}"[:_MAX_REASON] if reason else "it was asked back")
            return
        seconds = self._table.finish_seconds
        text = f"others wait for {self._table.name}: please finish" + (f" within {seconds:g} s" if seconds else "")
        if lease.holder is not None:
            task = asyncio.ensure_future(_tell(lease.holder, _FINISH, text))
            lease.notices.add(task)
            task.add_done_callback(lease.notices.discard)
        if seconds:
            asyncio.get_running_loop().call_later(
                seconds, lease.end, "taken", "a higher class of requests waits for it"
            )

    async def _lend(self, lease: _Lease) -> bytes:
        usb, device = await self._parts.find(self._table)  # before anybody is met: it may have been pulled out
        pins = self._pins(lease.borrower)
        holder = await self._parts.meet(pins, seconds=_MEET_SECONDS, grace_seconds=self._table.grace_seconds)
        lease.holder = holder
        try:
            report = await self._export(lease, holder, usb, device)
            data = encode_report(report)
            await self._parts.outbox.tell(lease_entry(lease.borrower.request, report))
            await _farewell(holder, report, data)
        finally:
            holder.close()
        return data

    def _pins(self, borrower: Borrower) -> AgentPins:
        order = borrower.order
        tls_key = bytes.fromhex(order.tls_key)
        use = ChannelUse(
            hub=self._parts.hub,
            agent=self._parts.agent,
            device=order.device,
            idempotency_key=borrower.idempotency_key,
            tls_key=tls_key,
        )
        secret = open_secret(self._parts.sealing_key, bytes.fromhex(order.sealed), use)
        return AgentPins(key=new_channel_key(), request_id=borrower.request, tls_key=tls_key, secret=secret)

    async def _export(self, lease: _Lease, holder: Holder, usb: str, device: ExportableDevice) -> LeaseReport:
        loop, order = asyncio.get_running_loop(), lease.borrower.order
        configuration = device.descriptors.configuration(device.listed.device.configuration_value)
        tap = CardTap(configuration, self._table.rules, told=_log_events(self._table.name, lease.borrower.request))
        async with self._parked():
            await self._fence(device)
            lease.exporter = exporter = Exporter(device, tap=tap)
            if lease.cause:
                exporter.end(lease.reason)
            seconds = min(order.seconds, self._table.minutes * 60)
            timer = loop.call_later(seconds, lease.end, "time", f"its {seconds:g} s are over")
            _LOG.info("lent", device=self._table.name, request=lease.borrower.request[:16], seconds=seconds)
            since_s = loop.time()
            try:
                await _tell(holder, _READY, device.listed.device.bus_id)
                session = await exporter.serve(KeptStream(holder))
            finally:
                timer.cancel()
            if session.was_reset or not session.was_imported or session.ended_by is EndedBy.DEVICE_GONE:
                await self._parts.journal.remember(self._mark, _FREE)
        report = lease_report(
            device=self._table.name,
            usb=usb,
            held_ms=int((loop.time() - since_s) * 1000),
            ended=(lease.cause or ended_by(session, lost=bool(holder.lost)), lease.reason or session.reason),
            session=session,
            counts=tap.finish(),
            link_seconds=holder.round_trip_seconds,
        )
        _LOG.info("given back", device=self._table.name, ended_by=report.ended_by, reason=report.reason)
        if not session.was_imported and session.give_back_error is None and report.ended_by == "agent":
            raise UsbError(
                "usb.not_lent",
                f"device {self._table.name!r} could not be lent: {session.reason}",
                hint="look at the agent's log; stop what else uses the device on the token's host",
            )
        return report

    async def _fence(self, device: ExportableDevice) -> None:
        """Nothing of the last holder is left in the device, even if the agent was killed while it was lent.

        Raises:
            UsbError: `usb.not_clean` if it cannot be reset; what holding it raises.
        """
        journal = self._parts.journal
        if await journal.recall(self._mark) == _LENT:
            port = await device.hold(on_done=lambda _: None, on_gone=lambda: None)
            try:
                await port.give_back()  # which resets it
            except OSError as error:
                raise UsbError(
                    "usb.not_clean",
                    f"device {self._table.name!r} was not reset after its last lease, and cannot be reset now:"
                    f" {error.strerror or error}",
                    hint="take it out and insert it again on the token's host",
                ) from error
        await journal.remember(self._mark, _LENT)

    @property
    def _mark(self) -> str:
        return f"device {self._table.name}"


async def _tell(holder: Holder, code: str, text: str) -> None:
    try:
        await holder.notice(code, text)
    except OSError as error:
        _LOG.info("the holder was not told", what=code, reason=str(error))


async def _farewell(holder: Holder, report: LeaseReport, data: bytes) -> None:
    try:
        await holder.end(f"lease.{report.ended_by}", report.reason[:1000], data)
    except OSError as error:
        _LOG.info("the holder was not told of the end", reason=str(error))


def _log_events(device: str, request: str) -> Callable[[tuple[CardEvent, ...]], None]:
    def log(events: tuple[CardEvent, ...]) -> None:
        for event in events:
            _LOG.info("card used", device=device, request=request[:16], what=str(event))

    return log


async def find_device(host: UsbHost, catalogue: Catalogue, table: DeviceTable) -> tuple[str, ExportableDevice]:
    """The device of a table, as it is called in reports, and ready to be exported.

    Raises:
        UsbError: as `Catalogue.find` and `kernel_device`.
    """
    offer = await catalogue.find(table.usb)
    one = offer.device
    name = f"{one.vendor_id:04x}:{one.product_id:04x}" + (f":{one.serial}" if one.serial else "")
    return name, await kernel_device(host, one)
