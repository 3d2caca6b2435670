# SPDX-License-Identifier: Apache-2.0
"""The lending part of an agent, put together."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Final

import structlog

from privyseal.agent.channels import AgentChannels, relay_opener
from privyseal.agent.config import AgentConfig, AgentFiles
from privyseal.agent.device_config import DeviceTable
from privyseal.agent.device_keeper import DeviceKeeper, LentDevice, catalogue_of
from privyseal.agent.joining import open_sealing_key
from privyseal.agent.keeper import TokenKeeper
from privyseal.agent.lending import DeviceLender, Holder, LenderParts, find_device
from privyseal.agent.outbox import Outbox
from privyseal.agent.tls import hub_tls
from privyseal.agent.turns import Turns
from privyseal.errors import PrivysealError
from privyseal.identity.channel import AgentPins
from privyseal.identity.trust import PinnedTrust
from privyseal.ports.journal import AgentJournal
from privyseal.relay.channel import Channel
from privyseal.relay.direct import DirectListener, split_place
from privyseal.relay.limits import ChannelLimits
from privyseal.usb.command import run_command
from privyseal.usb.host import UsbHost

__all__ = ["DeviceLending"]

_LOG: Final = structlog.get_logger("privyseal.agent.device")
_COMMAND_SECONDS: Final = 30.0


class _ChannelHolder:
    """A `Holder` over a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel: Final = channel
        self.read: Final = channel.read
        self.write: Final = channel.write
        self.close: Final = channel.close
        self.notice: Final = channel.notice
        self.end: Final = channel.end

    @property
    def lost(self) -> str:
        return self._channel.lost

    @property
    def round_trip_seconds(self) -> float | None:
        return self._channel.statistics.rtt_p50_seconds


class DeviceLending:
    """All that an agent lends.

    Attributes:
        keeper: Knows which devices are there.
        channels: Meets those who borrow them.
    """

    def __init__(
        self,
        config: AgentConfig,
        files: AgentFiles,
        *,
        trust: PinnedTrust,
        keepers: Mapping[str, TokenKeeper],
        journal: AgentJournal,
        outbox: Outbox,
        changed: Callable[[], Awaitable[None]],
        host: UsbHost | None = None,
    ) -> None:
        """Lend what `config.device` names.

        Args:
            config: The agent's.
            files: Where its keys are.
            trust: The pinned bundle.
            keepers: Of its tokens, which are parked while their device is lent.
            journal: The agent's.
            outbox: Takes what leases were used for.
            changed: Called when what is announced has changed.
            host: Its USB devices.
        """
        self._listen: Final = config.usb.listen
        self._direct: Final = DirectListener() if self._listen else None
        self.channels: Final = AgentChannels(
            {url: relay_opener(url, lambda: hub_tls(files, trust.bundle)) for url in config.hubs}, self._direct
        )
        usb = host or UsbHost()
        parts = LenderParts(
            agent=config.name,
            hub=trust.bundle.hub,
            sealing_key=open_sealing_key(files.sealing_key),
            journal=journal,
            outbox=outbox,
            find=lambda table: find_device(usb, catalogue_of(usb, table), table),
            meet=self._meet,
        )
        devices = tuple(_lent(table, parts, keepers) for table in config.device)
        self.keeper: Final = DeviceKeeper(devices, usb, changed)

    async def start(self) -> None:
        """Listen for clients that come directly, if agent.toml says so, and look for the devices.

        Raises:
            ConfigError: `listen.failed`.
        """
        if self._direct is not None:
            await self._direct.start(*split_place(self._listen))
            _LOG.info("listens for clients with a USB lease", address=self._listen)

    async def stop(self) -> None:
        """Listen no more."""
        if self._direct is not None:
            await self._direct.stop()

    async def _meet(self, pins: AgentPins, *, seconds: float, grace_seconds: float) -> Holder:
        limits = ChannelLimits(grace_seconds=grace_seconds)
        return _ChannelHolder(await self.channels.open(pins, limits, seconds=seconds))


def _lent(table: DeviceTable, parts: LenderParts, keepers: Mapping[str, TokenKeeper]) -> LentDevice:
    token = keepers.get(table.token)
    turns = Turns() if token is None else token.turns
    return LentDevice(table=table, lender=DeviceLender(table, parts, lambda: _parked(table, token)), turns=turns)


@asynccontextmanager
async def _parked(table: DeviceTable, token: TokenKeeper | None) -> AsyncIterator[None]:
    """Nobody on this host uses the device: neither its own token, nor what agent.toml has a command for."""
    async with nullcontext() if token is None else token.lent():
        try:
            await _command(table.release, f"release device {table.name!r}")
            yield
        finally:
            try:
                await _command(table.take_back, f"take device {table.name!r} back")
            except PrivysealError as error:  # the lease is over all the same
                _LOG.error("device not taken back", device=table.name, code=error.code, reason=error.message)


async def _command(arguments: tuple[str, ...], name: str) -> None:
    if arguments:
        await run_command(arguments, name=name, deadline_seconds=_COMMAND_SECONDS)
