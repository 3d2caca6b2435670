# SPDX-License-Identifier: Apache-2.0
"""Both ends of a channel, with fresh keys, over whatever pipe a test has."""

import asyncio
from dataclasses import dataclass, field

from privyseal.identity.channel import AgentPins, ChannelKey, ClientPins, new_channel_key
from privyseal.identity.pinned_pipe import PinnedPipe, accept_pinned, dial_pinned
from privyseal.ports.pipe import Pipe
from privyseal.relay.channel import Channel

__all__ = ["REQUEST_ID", "Lease", "ended"]

REQUEST_ID = "5e" * 32


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The keys of one lease."""

    client_key: ChannelKey = field(default_factory=new_channel_key)
    agent_key: ChannelKey = field(default_factory=new_channel_key)
    secret: bytes = b"s" * 32
    request_id: str = REQUEST_ID

    @property
    def of_client(self) -> ClientPins:
        return ClientPins(key=self.client_key, request_id=self.request_id, secret=self.secret)

    @property
    def of_agent(self) -> AgentPins:
        return AgentPins(
            key=self.agent_key, request_id=self.request_id, tls_key=self.client_key.sha256, secret=self.secret
        )

    async def pinned(self, agent: Pipe, client: Pipe) -> tuple[PinnedPipe, PinnedPipe]:
        """Both sides over two ends of a pipe: the agent's, the client's."""
        return await asyncio.gather(accept_pinned(agent, self.of_agent), dial_pinned(client, self.of_client))


async def ended(*channels: Channel) -> None:
    """Close them, and wait until they are."""
    for channel in channels:
        channel.close()
    await asyncio.gather(*(channel.finished() for channel in channels))
