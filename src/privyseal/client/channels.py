# SPDX-License-Identifier: Apache-2.0
"""The client's side of a USB lease's stream: the agent's own port first, if it has one, and then the hubs."""

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from privyseal.client.config import ClientConfig
from privyseal.client.mtls import mtls_context
from privyseal.client.proxied import proxied_context
from privyseal.errors import PrivysealError, UnavailableError, VerificationError
from privyseal.identity.channel import ClientPins
from privyseal.identity.keyfile import load_ed25519
from privyseal.identity.pinned_pipe import PinnedPipe, dial_pinned
from privyseal.ports.clock import Clock, system_clock
from privyseal.ports.pipe import Pipe
from privyseal.relay.channel import Channel
from privyseal.relay.direct import dial_direct
from privyseal.relay.limits import ChannelLimits
from privyseal.wire.http_signature import message_to_sign, sign_message
from privyseal.wire.relay import Notice

__all__ = ["ClientChannels", "DialRelay", "RelayAddress", "relay_addresses"]

#: How long the direct way may take, the handshake included.
_DIRECT_SECONDS: Final = 2.0
#: A hub lets one end wait for ten; and it is waited for an answer of the hub.
_RELAY_SECONDS: Final = 15.0


class DialRelay(Protocol):
    """`privyseal.relay.socket.dial_relay`, which needs the extra `usb`."""

    def __call__(self, url: str, tls: ssl.SSLContext, proof: Callable[[], Mapping[str, str]]) -> Awaitable[Pipe]:
        """A pipe through a hub; raises PrivysealError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayAddress:
    """One hub, as this client may ask it.

    Attributes:
        url: Of its listener.
        tls: How it is known.
        proof: Fields that sign a GET of this path, if a proxy ends TLS; else none.
    """

    url: str
    tls: ssl.SSLContext
    proof: Callable[[str], Mapping[str, str]]


def relay_addresses(config: ClientConfig, clock: Clock = system_clock) -> tuple[RelayAddress, ...]:
    """Of all hubs that the configuration names.

    Raises:
        ConfigError: `file.missing`, `file.not_a_key` and their like.
    """
    if not config.proxied:
        tls = mtls_context(config)
        return tuple(RelayAddress(url=url, tls=tls, proof=lambda _: {}) for url in config.hub_urls)
    tls, key, hub = proxied_context(config), load_ed25519(config.identity.request_key), config.load_bundle().hub

    def proof(path: str) -> Mapping[str, str]:
        message = message_to_sign("GET", path, None)
        return sign_message(message, key, hub=hub, created_s=clock() // 1000, nonce=secrets.token_bytes(16))

    return tuple(RelayAddress(url=url, tls=tls, proof=proof) for url in config.hub_urls)


class ClientChannels:
    """Dials agents."""

    def __init__(self, hubs: tuple[RelayAddress, ...], dial_relay: DialRelay) -> None:
        self._hubs: Final = hubs
        self._dial_relay: Final = dial_relay

    async def open(
        self,
        pins: ClientPins,
        limits: ChannelLimits | None = None,
        *,
        direct: tuple[str, int] | None = None,
        noticed: Callable[[Notice], None] = lambda _: None,
    ) -> Channel:
        """The channel to the agent of a lease whose turn has come.

        Args:
            pins: How the agent is known, and this client.
            limits: Numbers; within the grace the agent is dialled again, in the same ways.
            direct: The agent's own port, if it has told one.
            noticed: Called with what the agent tells.

        Raises:
            VerificationError: `channel.agent_proof` if whoever answers is not the agent.
            UnavailableError: `channel.no_agent`, `hub.unreachable`. PrivysealError: what a hub said.
        """

        async def again() -> Pipe:
            return await self.dial(pins, direct=direct)

        return Channel(await again(), limits, reconnect=again, noticed=noticed)

    async def dial(self, pins: ClientPins, *, direct: tuple[str, int] | None = None) -> PinnedPipe:
        """A pipe to the agent.

        Raises:
            PrivysealError: as `open`.
        """
        if direct is not None:
            try:
                async with asyncio.timeout(_DIRECT_SECONDS):
                    pipe = await dial_direct(*direct, pins.request_id)
                    return await dial_pinned(pipe, pins)
            except (OSError, VerificationError):
                pass  # something else may answer there; the hubs know where the agent is
        failure: PrivysealError | None = None
        for hub in self._hubs:
            try:
                return await self._through(hub, pins)
            except UnavailableError as error:
                failure = failure or error
        raise failure or UnavailableError("channel.no_agent", "client.toml names no hub")

    async def _through(self, hub: RelayAddress, pins: ClientPins) -> PinnedPipe:
        path = f"/v1/requests/{pins.request_id}/relay"
        pipe = await self._dial_relay(hub.url + path, hub.tls, lambda: hub.proof(path))
        try:
            return await dial_pinned(pipe, pins, seconds=_RELAY_SECONDS)
        except OSError as error:
            raise UnavailableError(
                "channel.no_agent",
                f"the agent did not answer for this lease through {hub.url}: {str(error) or 'no answer in time'}",
                hint="privyseal status shows whether it is linked to this hub",
            ) from error
