# SPDX-License-Identifier: Apache-2.0
"""A hub, an agent with a virtual USB token that it lends, and clients that borrow it, in this process."""

import asyncio
import dataclasses
import hashlib
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import usbip

from api_client import Asked
from lab.piv.ccid import CcidToken
from pool_site import PoolSite, running_pool
from privyseal.agent.device_config import DeviceTable
from privyseal.agent.joining import open_sealing_key
from privyseal.agent.wiring import open_agent
from privyseal.client.channels import ClientChannels, relay_addresses
from privyseal.formats.usb import LEASE, LeaseOrder, lease_preimage
from privyseal.identity.channel import ChannelKey, ChannelUse, ClientPins, new_channel_key, seal_secret
from privyseal.identity.keyfile import load_ed25519
from privyseal.ports.clock import system_clock
from privyseal.relay.channel import Channel
from privyseal.relay.socket import dial_relay
from privyseal.tlog.entry import ArtifactDigest
from privyseal.usb.ports import ExportableDevice
from privyseal.usb.streams import CarryEnd, SocketStream, carry
from privyseal.wire.api import SignatureItem, SignatureRequest
from privyseal.wire.dsse import parse_envelope
from privyseal.wire.leases import LeaseReport, read_report
from privyseal.wire.relay import Notice
from privyseal.wire.statement import (
    REQUEST_TYPE,
    ClaimedFile,
    RequestItem,
    RequestStatement,
    seal_request,
    statement_id,
)
from usb_tree import DescribedKernel, UsbTree
from virtual_usb import OneSocket, VirtualBus

__all__ = ["DEVICE", "Borrowed", "DeviceSite", "running_devices"]

AGENT, DEVICE = "pi", "ev-usb"


@dataclass(kw_only=True)
class Borrowed:
    """A lease that a client holds."""

    request_id: str
    channel: Channel
    client: socket.socket
    carrying: "asyncio.Task[CarryEnd]"
    notices: list[Notice]

    async def opened(self) -> Any:
        """The stranger's client of USB/IP, with the device imported; its calls block."""
        return await asyncio.to_thread(usbip.open, busid="1-1", transport=OneSocket(self.client))

    async def give_back(self) -> None:
        """End it as a client does that is done."""
        self.client.close()
        await self.carrying


@dataclass(kw_only=True)
class DeviceSite:
    """What runs."""

    pool: PoolSite
    bus: VirtualBus
    tree: UsbTree
    borrowed: list[Borrowed] = field(default_factory=list)

    @property
    def lender(self) -> Any:
        """That of the only device."""
        (device,) = self.pool.agents[AGENT].lending.keeper._devices
        return device.lender

    def order(
        self, key: ChannelKey, *, seconds: int = 600, format_name: str = LEASE.name, **changes: Any
    ) -> tuple[Asked, bytes]:
        """A sound request for the device, and the secret that its agent alone can open."""
        config = self.pool.client
        idempotency_key = secrets.token_hex(16)
        hub = config.load_bundle().hub
        use = ChannelUse(hub=hub, agent=AGENT, device=DEVICE, idempotency_key=idempotency_key, tls_key=key.sha256)
        sealing_key = open_sealing_key(self.pool.directory / AGENT / "sealing.key").public_key().public_bytes_raw()
        secret, sealed = seal_secret(sealing_key, use)
        preimage = lease_preimage(
            LeaseOrder(device=DEVICE, seconds=seconds, reason="a test", tls_key=key.sha256.hex(), sealed=sealed.hex())
        )
        digest = hashlib.sha256(preimage.signed).hexdigest()
        now_ms = system_clock()
        statement = RequestStatement(
            hub=hub,
            profile=DEVICE,
            format=format_name,
            items=(
                RequestItem(
                    preimage=digest,
                    artifact=ArtifactDigest(alg="sha256", digest=digest),
                    claimed=ClaimedFile(name=DEVICE, sha256=digest, size=len(preimage.signed)),
                ),
            ),
            idempotency_key=idempotency_key,
            created=now_ms,
            not_after=now_ms + 3_600_000,
        )
        statement = msgspec.structs.replace(statement, **changes)
        envelope = seal_request(statement, load_ed25519(config.identity.request_key))
        items = (SignatureItem(signed=preimage.signed, detail=b""),)
        return Asked(statement=statement, envelope=envelope, preimages=items), secret

    async def queue(self, key: ChannelKey, *, priority: str = "normal", **order: Any) -> ClientPins:
        """Ask for the device; by what the client will know the agent."""
        asked, secret = self.order(key, **order)
        body = SignatureRequest(envelope=asked.envelope, preimages=asked.preimages, priority=priority)
        reply = await self.pool.call("POST", "/v1/signatures?wait=0", msgspec.json.encode(body))
        assert reply.status in (200, 202), reply
        public = load_ed25519(self.pool.client.identity.request_key).public_key().public_bytes_raw()
        request_id = statement_id(public, parse_envelope(asked.envelope, REQUEST_TYPE).payload)
        return ClientPins(key=key, request_id=request_id, secret=secret)

    async def borrow(self, **order: Any) -> Borrowed:
        """Ask for the device, and take it when the turn has come."""
        return await self.take(await self.queue(new_channel_key(), **order))

    async def take(self, pins: ClientPins) -> Borrowed:
        """Take it, once it is this request's turn."""
        await self.until(lambda: self.lender.holder == pins.request_id)
        notices: list[Notice] = []
        channels = ClientChannels(relay_addresses(self.pool.client), dial_relay)
        channel = await channels.open(pins, noticed=notices.append)
        ours, client = socket.socketpair()
        client.settimeout(15)
        carrying = asyncio.create_task(carry(await SocketStream.over(ours), channel))
        self.borrowed.append(
            Borrowed(request_id=pins.request_id, channel=channel, client=client, carrying=carrying, notices=notices)
        )
        return self.borrowed[-1]

    async def report(self, request_id: str) -> LeaseReport:
        """What the lease was used for, once it has ended."""
        (item,) = (await self.pool.ended(request_id)).items
        assert item.state == "signed", item
        return read_report(item.signature)

    async def until(self, holds: Callable[[], bool]) -> None:
        await self.pool.until(holds)


@asynccontextmanager
async def running_devices(
    directory: Path, bus: VirtualBus, token: CcidToken, **table: Any
) -> AsyncIterator[DeviceSite]:
    """An agent with a software token, and the virtual one as its device; `table` is what `[[device]]` says more."""
    (directory / "usb").mkdir()
    tree = UsbTree(directory / "usb")
    tree.attach("1-1", ids="0529:0620", serial="VT0001")
    async with running_pool(directory, {}, "", ("*", DEVICE)) as pool:
        await pool.add_agent(AGENT)
        lines = "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in table.items())
        device = f'\n[[device]]\nname = "{DEVICE}"\nusb = "0529:0620"\ntoken = "software"\n{lines}'
        pool.write_agent(AGENT, pool.token(AGENT), device)
        agent = await open_agent(pool.directory / AGENT, usb=DescribedKernel().host(tree))
        site = DeviceSite(pool=pool, bus=bus, tree=tree)
        pool.agents[AGENT] = agent

        async def find(_table: DeviceTable) -> tuple[str, ExportableDevice]:
            return "0529:0620:VT0001", bus

        site.lender._parts = dataclasses.replace(site.lender._parts, find=find)
        await agent.start()
        await pool.until(lambda: (found := pool.hub.hub.dispatch.profile(DEVICE)) is not None and found.online)
        await pool.online(f"{AGENT}/software")
        try:
            yield site
        finally:
            for one in site.borrowed:
                one.client.close()
                one.channel.close()
                await one.carrying
                await one.channel.finished()
