# SPDX-License-Identifier: Apache-2.0
"""Borrowing USB devices: a turn in the queue, the channel to the agent, and what the lease was used for.

The hub's API blocks and is asked on threads; the channel is asyncio's. Who uses the device is `device_use.py`'s part.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from privyseal.client.channels import ClientChannels, DialRelay, relay_addresses
from privyseal.client.config import ClientConfig
from privyseal.client.hub import HubClient
from privyseal.client.lease_request import LeaseRequest, LeaseWish, RecordedLease, new_request, recorded_lease
from privyseal.client.time_limit import TimeLimit
from privyseal.errors import (
    ConfigError,
    ConflictError,
    PrivysealError,
    UnavailableError,
    UsbError,
    branch_named,
)
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import Clock, system_clock
from privyseal.relay.channel import Channel
from privyseal.relay.limits import ChannelLimits
from privyseal.wire.api import ItemView
from privyseal.wire.devices import DevicesView, DeviceView
from privyseal.wire.leases import LeaseReport, read_report
from privyseal.wire.relay import Notice

__all__ = ["DeviceClient", "HeldLease", "LeaseEnd", "Turn"]

#: The agent waits ten seconds for who has its turn.
_LOOK_SECONDS: Final = 1.0
_FIRST_LOOK_SECONDS: Final = 0.1
#: Until whoever uses the token now has let go of it.
_READY_SECONDS: Final = 60.0
#: Until the hub has the request, also over a restart of the hub.
_HANDING_IN_SECONDS: Final = 30.0
#: The device is reset before its agent says how it was used.
_LAST_WORD_SECONDS: Final = 20.0
_RECORDED_SECONDS: Final = 20.0
_READY: Final = "lease-ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Where somebody stands who waits.

    Attributes:
        before: How many come first; whoever has the device now is one of them.
        device: What is known of the device; None if it was not asked.
    """

    before: int
    device: DeviceView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEnd:
    """How a lease ended.

    Attributes:
        ended_by: As in a `LeaseReport`; `lost` if nothing more was heard of the agent.
        reason: In words.
        report: What the agent counted; None if that is not known here.
        recorded: The same with its proof; None if the hub did not show it.
        problem: Why not.
    """

    ended_by: str
    reason: str
    report: LeaseReport | None
    recorded: RecordedLease | None
    problem: PrivysealError | None


class DeviceClient:
    """Borrows devices."""

    def __init__(
        self,
        config: ClientConfig,
        dial_relay: DialRelay,
        *,
        limits: ChannelLimits | None = None,
        clock: Clock = system_clock,
    ) -> None:
        """Read the client's keys.

        Args:
            config: The client's.
            dial_relay: `privyseal.relay.socket.dial_relay`, which needs the extra `usb`.
            limits: Of channels; the grace is the wish's.
            clock: Milliseconds since the epoch.

        Raises:
            ConfigError: what is missing.
        """
        self._config: Final = config
        self._hub: Final = HubClient(config)
        self._key: Final = load_ed25519(config.identity.request_key)
        self._channels: Final = ClientChannels(relay_addresses(config, clock), dial_relay)
        self._limits: Final = limits or ChannelLimits()
        self._clock: Final = clock

    async def devices(self) -> DevicesView:
        """All devices. Raises PrivysealError: what the hub said."""
        return await asyncio.to_thread(self._hub.devices)

    async def borrow(
        self,
        wish: LeaseWish,
        *,
        waits: Callable[[Turn], None] = lambda _: None,
        noticed: Callable[[Notice], None] = lambda _: None,
    ) -> "HeldLease":
        """Wait for the turn and meet the agent. Whoever is cancelled meanwhile waits no longer at the hub, either.

        Args:
            wish: What is wanted.
            waits: Told while others come first.
            noticed: Told what the agent tells the holder, such as that others wait.

        Raises:
            ConfigError: `device.unknown`, `channel.agent_key`. UsbError: `device.in_use` if the turn did not come in
                time. DeniedError, UnavailableError and others: what hub or agent said.
        """
        view = await self.devices()
        device = found_device(view, wish.device)
        if wish.wait_seconds is not None and wish.wait_seconds <= 0 and device.lent is not None:
            raise in_use(device)
        if not device.online and device.code.startswith("usb."):  # before anything is asked for that it may need
            raise UsbError(device.code, device.problem, hint=device.hint)
        request = new_request(
            wish,
            agent=device.agent,
            bundle=self._hub.bundle,
            key=self._key,
            longest_seconds=view.longest_seconds,
            now_ms=self._clock(),
        )
        limit = TimeLimit(seconds=min(self._config.wait_seconds, _HANDING_IN_SECONDS))
        handing_in = asyncio.ensure_future(asyncio.to_thread(self._hub.hand_in, request.body, limit.begin()))
        try:
            await asyncio.shield(handing_in)
            return await self._met(request, wish, waits, noticed)
        except BaseException:
            await asyncio.shield(self._withdraw(request, handing_in))
            raise

    async def _withdraw(self, request: LeaseRequest, handing_in: "asyncio.Future[None]") -> None:
        with contextlib.suppress(PrivysealError):
            await handing_in
            await asyncio.to_thread(self._hub.cancel, request.id)

    async def _met(
        self, request: LeaseRequest, wish: LeaseWish, waits: Callable[[Turn], None], noticed: Callable[[Notice], None]
    ) -> "HeldLease":
        loop = asyncio.get_running_loop()
        seconds = wish.wait_seconds
        # Whoever waits for nobody still waits for the hub to see that the device is free.
        until_s = None if seconds is None else loop.time() + max(seconds, 2.0)
        held = HeldLease(self._hub, request, noticed)
        while True:
            await self._turn(request, wish, until_s, waits)
            limits = replace(self._limits, grace_seconds=wish.grace_seconds)
            try:
                channel = await self._channels.open(request.pins, limits, noticed=held.noticed)
            except (UnavailableError, ConflictError) as error:
                # It has failed at the agent, is back in the queue, or the agent is not ready yet.
                await self._raise_failed(request, error)
                continue
            await held.begin(channel)
            return held

    async def _raise_failed(self, request: LeaseRequest, met: PrivysealError) -> None:
        """Raise what the agent said, if the item has ended."""
        try:
            item = await asyncio.to_thread(lambda: self._hub.outcome(request.id, wait_seconds=0.5))
        except UnavailableError:
            raise met from None
        if item is not None:
            raise failure_of(item) or met

    async def _turn(
        self, request: LeaseRequest, wish: LeaseWish, until_s: float | None, waits: Callable[[Turn], None]
    ) -> None:
        """Return when the agent was asked to lend the device."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_LOOK_SECONDS
        while True:
            try:
                progress = (await asyncio.to_thread(self._hub.request, request.id)).progress
            except UnavailableError:
                pass  # the request waits at the hub, which comes back
            else:
                if progress.under_way:
                    return
                if progress.state == "done":
                    item = await asyncio.to_thread(lambda: self._hub.outcome(request.id, wait_seconds=0))
                    raise (item and failure_of(item)) or _not_told(wish.device)
                if until_s is not None and loop.time() > until_s:
                    raise in_use(await self._device(wish.device))
                if pause >= _LOOK_SECONDS:
                    waits(Turn(before=progress.position, device=await self._device(wish.device)))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LOOK_SECONDS)

    async def _device(self, name: str) -> DeviceView | None:
        try:
            return found_device(await self.devices(), name)
        except PrivysealError:
            return None


class HeldLease:
    """A lease that runs: this process has the device, and `finish` gives it back.

    Attributes:
        channel: To the agent, which exports the device over it.
        bus_id: Under which the agent exports it.
    """

    channel: Channel

    def __init__(self, hub: HubClient, request: LeaseRequest, noticed: Callable[[Notice], None]) -> None:
        self._hub: Final = hub
        self._request: Final = request
        self._noticed: Final = noticed
        self._ready: Final = asyncio.Event()
        self.bus_id = ""

    @property
    def request_id(self) -> str:
        """Name of its request."""
        return self._request.id

    def noticed(self, notice: Notice) -> None:
        """Take what the agent tells."""
        if notice.code == _READY:
            self.bus_id = notice.text
            self._ready.set()
        else:
            self._noticed(notice)

    async def begin(self, channel: Channel) -> None:
        """Wait until the agent exports the device over this channel.

        Raises:
            PrivysealError: what became of it instead.
        """
        self.channel = channel
        ready, over = asyncio.ensure_future(self._ready.wait()), asyncio.ensure_future(channel.finished())
        try:
            await asyncio.wait((ready, over), timeout=_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            channel.close()
            raise
        finally:
            ready.cancel()
            over.cancel()
        if not self._ready.is_set():
            raise await self._not_begun(channel)

    async def _not_begun(self, channel: Channel) -> PrivysealError:
        """Why the agent did not export the device."""
        channel.close()
        await channel.finished()
        item = await self._outcome(_LAST_WORD_SECONDS)
        return (item and failure_of(item)) or UnavailableError(
            "channel.no_agent", f"the agent did not hand the device over: {channel.lost or 'it said nothing'}"
        )

    async def finish(self) -> LeaseEnd:
        """Give the device back, if it is not yet, and learn what is on record of the lease.

        Raises:
            VerificationError: `receipt.mismatch`, `lease.other_report`, and what is wrong with the receipt.
        """
        await self._say_farewell()
        channel = self.channel
        end, lost = channel.ended, channel.lost
        channel.close()
        await channel.finished()
        said = b"" if end is None else end.summary
        ended_by = "lost" if end is None else end.code.removeprefix("lease.")
        reason = lost or "the agent said nothing" if end is None else end.text
        report = read_report(said) if said else None
        try:
            item = await self._outcome(_RECORDED_SECONDS)
        except PrivysealError as error:
            return LeaseEnd(ended_by=ended_by, reason=reason, report=report, recorded=None, problem=error)
        problem = _not_told(self._request.id[:16]) if item is None else failure_of(item)
        if problem is not None or item is None:
            return LeaseEnd(ended_by=ended_by, reason=reason, report=report, recorded=None, problem=problem)
        recorded = recorded_lease(self._request, item, self._hub.bundle, said)
        report = recorded.report
        return LeaseEnd(ended_by=report.ended_by, reason=report.reason, report=report, recorded=recorded, problem=None)

    async def _say_farewell(self) -> None:
        """Say that this side is done, and hear how it was."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                if self.channel.ended is None:
                    with contextlib.suppress(BrokenPipeError):  # it was said before
                        await self.channel.end("lease-detached", "the holder is done with it")
                while await self.channel.read():
                    pass

    async def _outcome(self, seconds: float) -> ItemView | None:
        """What became of the request, once it has ended; None if it has not."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + seconds
        while (left := until_s - loop.time()) > 0:
            ask = partial(self._hub.outcome, self._request.id, wait_seconds=min(left, 5.0))
            if (item := await asyncio.to_thread(ask)) is not None:
                return item
        return None


def found_device(view: DevicesView, name: str) -> DeviceView:
    """A device by its name.

    Raises:
        ConfigError: `device.unknown`.
    """
    for device in view.devices:
        if device.name == name:
            return device
    known = ", ".join(one.name for one in view.devices)
    raise ConfigError(
        "device.unknown",
        f"no agent lends a device {name!r}",
        hint=f"devices: {known or 'none; [[device]] in agent.toml lends one'}",
    )


def in_use(device: DeviceView | None) -> UsbError:
    """The refusal of who does not wait, or no longer."""
    lent = None if device is None else device.lent
    name = "the device" if device is None else f"device {device.name!r}"
    if lent is not None:
        why = f"client {lent.client!r} has it" + (f" ({lent.reason})" if lent.reason else "")
    elif device is not None and device.signing:
        why = "its token signs"
    else:
        why = "others come first"
    return UsbError(
        "device.in_use",
        f"{name} could not be had in time: {why}",
        hint="privyseal device leases shows who has it; without --no-wait and --timeout your turn comes",
    )


def failure_of(item: ItemView) -> PrivysealError | None:
    """What the hub says of an item that failed."""
    return None if item.state == "signed" else branch_named(item.branch)(item.code, item.message)


def _not_told(what: str) -> UnavailableError:
    return UnavailableError("lease.not_told", f"the hub does not tell what became of lease {what}")
