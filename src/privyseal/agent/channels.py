# SPDX-License-Identifier: Apache-2.0
"""The agent's side of USB leases' streams: the client is met at whichever hub it is, or at the agent's own port."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import structlog

from privyseal.errors import PrivysealError, UnavailableError, VerificationError
from privyseal.identity.channel import AgentPins
from privyseal.identity.pinned_pipe import PinnedPipe, accept_pinned
from privyseal.ports.pipe import Pipe
from privyseal.relay.channel import Channel
from privyseal.relay.direct import DirectListener
from privyseal.relay.limits import ChannelLimits
from privyseal.relay.socket import dial_relay
from privyseal.wire.relay import Notice

__all__ = ["AgentChannels", "OpenRelay", "relay_opener"]

_LOG: Final = structlog.get_logger("privyseal.agent.channel")
_AGAIN_SECONDS: Final = 0.5

#: Opens this agent's end for a request at one hub; raises OSError or PrivysealError.
OpenRelay = Callable[[str], Awaitable[Pipe]]


def relay_opener(url: str, tls: Callable[[], ssl.SSLContext]) -> OpenRelay:
    """Opens ends at the hub at this URL, each time by the trust bundle that is in force then."""
    url = url.rstrip("/")

    async def open_relay(request_id: str) -> Pipe:
        return await dial_relay(f"{url}/v1/agents/relays/{request_id}", tls())

    return open_relay


class AgentChannels:
    """Meets clients. Each hub is dialled, as the client's end may be at any of them; what else came is closed."""

    def __init__(
        self,
        hubs: Mapping[str, OpenRelay],
        direct: DirectListener | None = None,
        *,
        again_seconds: float = _AGAIN_SECONDS,
    ) -> None:
        """Meet clients.

        Args:
            hubs: Opens the agent's end, by the hub's URL.
            direct: The agent's own port, if it listens.
            again_seconds: From one try to the next at a hub where no client came, or which did not answer.
        """
        self._hubs: Final = hubs
        self._direct: Final = direct
        self._again_seconds: Final = again_seconds

    async def open(
        self,
        pins: AgentPins,
        limits: ChannelLimits | None = None,
        *,
        seconds: float,
        noticed: Callable[[Notice], None] = lambda _: None,
    ) -> Channel:
        """The channel to the client of a lease, once that has come.

        Args:
            pins: Who the client is, and how the agent shows that it is the agent.
            limits: Numbers; within the grace the client is met again in the same ways.
            seconds: How long it is waited for.
            noticed: Called with what the client tells.

        Raises:
            UnavailableError: `channel.no_client`.
        """
        limits = limits or ChannelLimits()
        pipe = await self.meet(pins, seconds=seconds)
        return Channel(pipe, limits, reconnect=lambda: self.meet(pins, seconds=limits.grace_seconds), noticed=noticed)

    async def meet(self, pins: AgentPins, *, seconds: float) -> PinnedPipe:
        """A pipe to the client, however it comes first.

        Raises:
            UnavailableError: `channel.no_client`.
        """
        found: asyncio.Future[PinnedPipe] = asyncio.get_running_loop().create_future()
        works: list[Coroutine[Any, Any, None]] = [
            self._at_hub(url, open_relay, pins, found, seconds) for url, open_relay in self._hubs.items()
        ]
        if self._direct is not None:
            works.append(self._at_port(self._direct, pins, found))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            async with asyncio.timeout(seconds):
                return await found
        except TimeoutError as error:
            _close_found(found)
            raise UnavailableError(
                "channel.no_client",
                f"the client of request {pins.request_id[:16]}… did not come within {seconds:g} s",
                hint="is it still there, and can it reach a hub that this agent is linked to?",
            ) from error
        except asyncio.CancelledError:
            _close_found(found)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _at_hub(
        self, url: str, open_relay: OpenRelay, pins: AgentPins, found: "asyncio.Future[PinnedPipe]", seconds: float
    ) -> None:
        while True:
            try:
                pipe = await open_relay(pins.request_id)
                await self._judge(pipe, pins, found, url, seconds)
            except (OSError, PrivysealError) as error:
                _LOG.info("no client at this hub", hub=url, request=pins.request_id, reason=str(error))
            else:
                return
            await asyncio.sleep(self._again_seconds)

    async def _at_port(self, direct: DirectListener, pins: AgentPins, found: "asyncio.Future[PinnedPipe]") -> None:
        async with asyncio.TaskGroup() as group:
            with direct.expecting(pins.request_id) as arriving:
                while True:
                    group.create_task(self._at_connection(await arriving.get(), pins, found))

    async def _at_connection(self, pipe: Pipe, pins: AgentPins, found: "asyncio.Future[PinnedPipe]") -> None:
        with contextlib.suppress(OSError, PrivysealError):
            await self._judge(pipe, pins, found, "direct")

    async def _judge(
        self, pipe: Pipe, pins: AgentPins, found: "asyncio.Future[PinnedPipe]", way: str, wait_seconds: float = 10.0
    ) -> None:
        try:
            inside = await accept_pinned(pipe, pins, wait_seconds=wait_seconds)
        except VerificationError as error:
            _LOG.warning("a stranger for a lease", way=way, request=pins.request_id, code=error.code)
            raise
        if found.done():
            inside.close()
        else:
            found.set_result(inside)


def _close_found(found: "asyncio.Future[PinnedPipe]") -> None:
    """It came at the moment at which nobody waits for it any more."""
    if found.done() and not found.cancelled():
        found.result().close()
