# SPDX-License-Identifier: Apache-2.0
"""The stream of a USB lease where several hubs share a database: the agent finds the hub at which its client is."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import api_of, ask
from cell_site import PROFILE, Cell, make_cell
from channels import Lease, ended
from postgres_server import PostgresServer
from privyseal.agent.channels import AgentChannels, relay_opener
from privyseal.client.channels import ClientChannels, relay_addresses
from privyseal.client.hub import HubClient
from privyseal.client.transport import web_context
from privyseal.relay.channel import Channel
from privyseal.relay.limits import ChannelLimits
from privyseal.relay.socket import dial_relay
from programs import succeeded, until

pytestmark = pytest.mark.interop

LASTING = ChannelLimits(heartbeat_seconds=0.1, silent_seconds=5.0, grace_seconds=30.0, again_seconds=0.1)


@pytest.fixture
def cell(postgres: PostgresServer, tmp_path: Path) -> Iterator[Cell]:
    database = asyncio.run(postgres.make_database())
    cell = make_cell(tmp_path / "cell", postgres.url(database), sign_ms=250)
    try:
        yield cell
    finally:
        cell.end()


def under_way(cell: Cell, client: str) -> str:
    config = cell.site.client(client)
    api = api_of(config)
    request_id: str = api("POST", "/v1/signatures", ask(config, PROFILE, items=60).body).document["id"]
    api.close()
    hub = HubClient(config)
    until(lambda: hub.request(request_id).progress.under_way, "a request that is under way")
    return request_id


def agents_of(cell: Cell) -> AgentChannels:
    def tls() -> ssl.SSLContext:
        context = web_context(cell.site.client().load_bundle().statement.ca)
        directory = cell.agent_directory(0)
        context.load_cert_chain(directory / "tls.pem", directory / "tls.key")
        return context

    urls = [cell.url(number) for number in range(2)]
    return AgentChannels({url: relay_opener(url, tls) for url in urls}, again_seconds=0.05)


async def leased(cell: Cell, client: str, limits: ChannelLimits) -> tuple[Channel, Channel]:
    lease = Lease(request_id=await asyncio.to_thread(under_way, cell, client))
    clients = ClientChannels(relay_addresses(cell.site.client(client)), dial_relay)
    return await asyncio.gather(
        agents_of(cell).open(lease.of_agent, limits, seconds=20), clients.open(lease.of_client, limits)
    )


async def heard(channel: Channel, data: bytes) -> None:
    found = b""
    while len(found) < len(data):
        found += await channel.read()
    assert found == data


async def test_a_client_may_be_at_any_hub_and_go_to_another(cell: Cell) -> None:
    """The hub that carries the stream is killed; both sides find each other at the other one, and nothing is lost."""
    client_name = cell.client("both", 1, 0)
    agent, client = await leased(cell, client_name, LASTING)
    await client.write(b"at hub 1")
    await heard(agent, b"at hub 1")

    cell.hubs[1].process.kill()
    await client.write(b"at hub 0")
    await heard(agent, b"at hub 0")
    await agent.write(b"and back")
    await heard(client, b"and back")
    assert client.statistics.reconnected >= 1
    await ended(agent, client)


async def test_a_standing_that_ends_at_one_hub_ends_streams_at_the_other(cell: Cell) -> None:
    cell.site.add_client("leaving")
    cell.point("leaving", 1)
    agent, client = await leased(cell, "leaving", ChannelLimits())
    await client.write(b"still there")
    await heard(agent, b"still there")

    succeeded(await asyncio.to_thread(cell.site.administer, "hub", "revoke", "client", "leaving"))
    for channel in (agent, client):
        with pytest.raises(ConnectionError, match="a standing was ended at another hub"):
            await channel.read()
    await asyncio.gather(agent.finished(), client.finished())
