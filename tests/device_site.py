# SPDX-License-Identifier: Apache-2.0
"""A hub, an agent that lends a virtual token, and clients that may have it, in this process and over real sockets."""

import asyncio
import datetime as dt
import gc
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import usbip

from installation import free_port
from lab.piv.ccid import CcidToken
from lab.piv.keys import CardKey
from lab.piv.station import Station
from privyseal.agent.channels import AgentChannels, relay_opener
from privyseal.agent.config import AgentFiles
from privyseal.agent.device_config import DeviceTable
from privyseal.agent.device_keeper import LentDevice, OpenedDevice, _announcement, _served
from privyseal.agent.joining import open_sealing_key, remember_checkpoint
from privyseal.agent.lending import DeviceLender, Holder, LenderParts
from privyseal.agent.tls import hub_tls
from privyseal.agent.turns import Turns
from privyseal.agent.wiring import Agent, open_agent
from privyseal.client.administration import Administration
from privyseal.client.config import ClientConfig, client_config_text, load_client_config
from privyseal.client.devices import DeviceClient
from privyseal.client.joining import join
from privyseal.client.log import LogReader
from privyseal.client.log_files import verify_log
from privyseal.errors import UsbError
from privyseal.hub.config import HubConfig
from privyseal.hub.setup import NewHub, init_hub
from privyseal.hub.wiring import HubProcess, open_hub
from privyseal.identity.channel import AgentPins
from privyseal.identity.keyfile import write_private
from privyseal.relay.channel import Channel
from privyseal.relay.limits import ChannelLimits
from privyseal.relay.socket import dial_relay
from privyseal.tlog.entry import Entry, parse_entry
from privyseal.wire.devices import DeviceView
from virtual_usb import OneSocket, VirtualBus

__all__ = ["AGENT", "DEVICE", "PIN", "QUICK", "SLOT", "DeviceSite", "device_site"]

AGENT, DEVICE, PIN, SLOT = "pi", "ev-usb", "731946", 0x9A
#: Whoever is silent is noticed sooner than in earnest.
QUICK = ChannelLimits(heartbeat_seconds=0.2, silent_seconds=1.5)


class _Holder:
    """A `Holder` over a channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.read, self.write, self.close = channel.read, channel.write, channel.close
        self.notice, self.end = channel.notice, channel.end

    @property
    def lost(self) -> str:
        return self.channel.lost

    @property
    def round_trip_seconds(self) -> float | None:
        return self.channel.statistics.rtt_p50_seconds


@dataclass(kw_only=True)
class DeviceSite:
    """What runs: the agent `pi` lends the device `ev-usb` to the clients `client` and `other`, and not to `stranger`.

    Attributes:
        bus: Where the token is plugged in.
        table: As agent.toml would have it.
        holders: The agent's ends of all channels so far.
        sockets: Of the clients that we did not write.
    """

    directory: Path
    config: HubConfig
    bus: VirtualBus
    table: DeviceTable
    hub: HubProcess = field(init=False)
    agent: Agent = field(init=False)
    lender: DeviceLender = field(init=False)
    holders: list[_Holder] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    def client(self, name: str = "client") -> ClientConfig:
        return load_client_config(str(self.directory / f"{name}.toml"))

    def devices(self, name: str = "client", limits: ChannelLimits = QUICK) -> DeviceClient:
        return DeviceClient(self.client(name), dial_relay, limits=limits)

    async def device(self, name: str = "client") -> DeviceView:
        (found,) = (await self.devices(name).devices()).devices
        return found

    def desk(self) -> Administration:
        return Administration(
            bundle=self.hub.hub.bundle,
            web_url=self.config.web_url,
            authority_paths=(self.directory / "authority.key",),
        )

    def add_client(self, name: str, *profiles: str) -> None:
        code = self.desk().invite("client", name, profiles)
        member = join(code, "client", self.directory / name)
        text = client_config_text(name=name, hubs=member.mtls_urls, web=member.web_url, identity=name)
        (self.directory / f"{name}.toml").write_text(text)

    async def start_agent(self) -> None:
        place = self.directory / AGENT
        self.agent = agent = await open_agent(place)
        await agent.start()
        files, bundle = AgentFiles(place), self.hub.hub.bundle
        urls = agent.config.hubs
        channels = AgentChannels({url: relay_opener(url, lambda: hub_tls(files, bundle)) for url in urls})

        async def meet(pins: AgentPins, *, seconds: float, grace_seconds: float) -> Holder:
            limits = ChannelLimits(
                heartbeat_seconds=QUICK.heartbeat_seconds,
                silent_seconds=QUICK.silent_seconds,
                grace_seconds=grace_seconds,
            )
            self.holders.append(_Holder(await channels.open(pins, limits, seconds=seconds)))
            return self.holders[-1]

        async def find(table: DeviceTable) -> tuple[str, Any]:
            if self.bus.plugged is None:
                raise UsbError("usb.not_found", f"no USB device fits {table.usb}", hint="insert it")
            return "0529:0620:VT0001", self.bus

        parts = LenderParts(
            agent=AGENT,
            hub=bundle.hub,
            sealing_key=open_sealing_key(files.sealing_key),
            journal=agent._journal,
            outbox=agent.outbox,
            find=find,
            meet=meet,
        )
        self.lender = DeviceLender(self.table, parts, nullcontext)
        await self.announce()

    async def announce(self, problem: UsbError | None = None) -> None:
        """Serve and announce the device, as the keeper does when it has looked."""
        lent = LentDevice(table=self.table, lender=self.lender, turns=Turns())
        announcement = _announcement(self.table, problem=problem)
        opened = OpenedDevice(announcement=announcement, served=None if problem else _served(lent))
        self.agent.executor.serve(() if opened.served is None else (opened.served,))
        await self.agent.links.announce((announcement,))
        dispatch = self.hub.hub.dispatch

        def known() -> bool:
            found = dispatch.profile(DEVICE)
            return found is not None and found.online is (problem is None) and bool(found.lanes[0].lease.held)

        await self.until(known)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - hub and agent have no event for what tests look at
                await asyncio.sleep(0.005)

    async def opened_at(self, port: int, bus_id: str = "1-1") -> Any:
        """The stranger's client with the device imported; its calls block, and belong into threads."""
        connected = socket.create_connection(("127.0.0.1", port))
        connected.settimeout(15)
        self.sockets.append(connected)
        return await asyncio.to_thread(usbip.open, busid=bus_id, transport=OneSocket(connected))

    async def entries(self) -> list[Entry]:
        """All entries, once the log has been found sound."""

        def read() -> list[Entry]:
            reader = LogReader(self.client())
            verify_log(reader)
            return [parse_entry(entry) for _, entry in reader.entries(0, reader.checkpoint().size)]

        return await asyncio.to_thread(read)

    async def stop(self) -> None:
        for connected in self.sockets:
            connected.close()
        await self.agent.stop()
        gc.collect()  # a client that is done with its connection closes it when it goes
        await self.hub.stop()


@asynccontextmanager
async def device_site(directory: Path, keys: dict[int, CardKey], **table: Any) -> AsyncIterator[DeviceSite]:
    """Make one, and stop it; `table` is of the device."""
    port = free_port()
    config = HubConfig(
        name="hub.example/devices",
        listen_mtls=f"127.0.0.1:{port}",
        listen_web=f"127.0.0.1:{port + 1}",
        mtls_url=f"https://localhost:{port}",
        web_url=f"https://localhost:{port + 1}",
    )
    now = dt.datetime.now(dt.UTC)
    init_hub(NewHub(directory=directory / "hub", authority_path=directory / "authority.key", config=config), now)
    bus = VirtualBus()
    token = CcidToken(Station(keys, pin=PIN), bus)
    named = DeviceTable(name=DEVICE, usb="0529:0620", **table)
    site = DeviceSite(directory=directory, config=config, bus=bus, table=named)
    site.hub = await open_hub(directory / "hub")
    await site.hub.start()
    try:
        await asyncio.to_thread(_join_all, site)
        member_text = f'name = "{AGENT}"\nhub = "{config.mtls_url}"\nweb = "{config.web_url}"\n'
        write_private(directory / AGENT / "agent.toml", member_text.encode())
        await site.start_agent()
        yield site
    finally:
        await site.stop()
        if bus.plugged is not None:
            token.unplug()


def _join_all(site: DeviceSite) -> None:
    place = site.directory / AGENT
    member = join(site.desk().invite("agent", AGENT, ()), "agent", place)
    asyncio.run(remember_checkpoint(place, member.bundle, member.checkpoint))
    key = open_sealing_key(AgentFiles(place).sealing_key).public_key().public_bytes_raw()
    site.desk().change_trust(agents={AGENT: key})
    for name, profile in (("client", DEVICE), ("other", DEVICE), ("stranger", "another")):
        site.add_client(name, profile)
