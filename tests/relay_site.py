# SPDX-License-Identifier: Apache-2.0
"""Both sides of a USB lease's stream at an installation: a request at the token, an agent's end, a client's."""

import asyncio
import ssl

from channels import Lease
from installation import Site
from privyseal.agent.channels import AgentChannels, relay_opener
from privyseal.client.channels import ClientChannels, relay_addresses
from privyseal.client.transport import web_context
from privyseal.relay.channel import Channel
from privyseal.relay.limits import ChannelLimits
from privyseal.relay.socket import dial_relay
from programs import until
from queue_site import QueueSite

__all__ = ["QUICK", "agent_tls", "agents_of", "clients_of", "heard", "leased", "under_way"]

QUICK = ChannelLimits(heartbeat_seconds=0.05, silent_seconds=5.0)


def under_way(queue: QueueSite, client: str = "client", items: int = 50) -> str:
    """A request of which something is at the agent's token, and goes on being so for a while."""
    request_id = queue.queued(client, items)
    until(lambda: queue.record(client, request_id).progress.under_way, "a request that is under way")
    return request_id


def agent_tls(site: Site) -> ssl.SSLContext:
    """TLS as the agent has it."""
    context = web_context(site.client().load_bundle().statement.ca)
    context.load_cert_chain(site.agent_directory / "tls.pem", site.agent_directory / "tls.key")
    return context


def agents_of(site: Site) -> AgentChannels:
    """The agent's side, at the one hub."""
    (url,) = site.client().hub_urls
    return AgentChannels({url: relay_opener(url, lambda: agent_tls(site))}, again_seconds=0.05)


def clients_of(site: Site, name: str = "client") -> ClientChannels:
    """A client's side."""
    return ClientChannels(relay_addresses(site.client(name)), dial_relay)


async def leased(
    queue: QueueSite, lease: Lease, limits: ChannelLimits = QUICK, client: str = "client"
) -> tuple[Channel, Channel]:
    """Both sides of a lease's channel: the agent's, the client's."""
    return await asyncio.gather(
        agents_of(queue.site).open(lease.of_agent, limits, seconds=20),
        clients_of(queue.site, client).open(lease.of_client, limits),
    )


async def heard(channel: Channel, size: int) -> bytes:
    """So many bytes."""
    found = b""
    while len(found) < size:
        found += await channel.read()
    return found
