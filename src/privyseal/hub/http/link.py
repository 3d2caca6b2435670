# SPDX-License-Identifier: Apache-2.0
"""/v1/agents/link: the WebSocket that an agent keeps open."""

import asyncio
from contextlib import suppress
from typing import Final, Protocol

import structlog
from aiohttp import WSMessage, WSMsgType, web

from privyseal.errors import MalformedInputError, PrivysealError
from privyseal.hub.core import Hub
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.hub.links import AgentLink
from privyseal.ports.store import Enrolment
from privyseal.wire.jobs import Answers, OutcomeReply
from privyseal.wire.link import (
    LINK_VERSION,
    MAX_MESSAGE_BYTES,
    AgentEvent,
    AgentMessage,
    Announce,
    CheckpointAnswer,
    Events,
    EventsRecorded,
    Held,
    Hello,
    HubMessage,
    Refused,
    TokenReport,
    TrustChanged,
    UnlockAnswer,
    Welcome,
    decode_agent,
    encode,
)

__all__ = ["HEARTBEAT_SECONDS", "ROUTES", "LinkSocket", "serve_link"]

_LOG: Final = structlog.get_logger("privyseal.hub.link")
#: A peer that does not answer a ping within half of this is gone.
HEARTBEAT_SECONDS: Final = 10.0


class LinkSocket(Protocol):
    """What an agent link needs of a WebSocket."""

    async def receive(self) -> WSMessage:
        """The next frame, or one that says that the connection is gone."""
        ...

    async def send_bytes(self, data: bytes) -> None:
        """Send one binary frame.

        Raises:
            ConnectionError: the connection is gone.
        """
        ...

    async def close(self) -> object:
        """End the connection, also while somebody waits in `receive`."""
        ...


async def _receive(socket: LinkSocket) -> AgentMessage | None:
    frame = await socket.receive()
    if frame.type is WSMsgType.BINARY:
        return decode_agent(frame.data)
    if frame.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
        return None
    raise MalformedInputError("link.malformed", f"a {frame.type.name} frame on the agent link")


async def _greet(hub: Hub, agent: Enrolment, socket: LinkSocket, *, here: bool) -> AgentLink | None:
    """The link, once the agent goes by the same trust bundle; None if it gets the newer one and dials in again."""
    hello = await _receive(socket)
    if not isinstance(hello, Hello) or hello.version != LINK_VERSION:
        raise MalformedInputError("link.version", f"the agent does not speak link version {LINK_VERSION}")

    async def send(message: HubMessage) -> None:
        await socket.send_bytes(encode(message))

    if hello.bundle != hub.bundle.sha256:
        await send(TrustChanged(bundle=hub.bundle.envelope))
        return None
    await hub.agreement.check_agent_head(hello.checkpoint_size, hello.checkpoint_root)
    link = AgentLink(
        agent,
        send,
        held_size=hello.checkpoint_size,
        hang_up=socket.close,
        witness=hello.witness,
        here=here,
    )
    await send(Welcome(name=agent.name, recorded=await hub.agent_events.recorded(agent)))
    return link


async def _record(hub: Hub, socket: LinkSocket, link: AgentLink, events: tuple[AgentEvent, ...]) -> None:
    """Put an agent's events on record, and say so. What cannot be recorded ends the link: the agent tells it again."""
    try:
        await link.send(EventsRecorded(through=await hub.agent_events.record(link.agent, events)))
    except PrivysealError as error:
        _LOG.warning("events not recorded", agent=link.agent.name, code=error.code, reason=error.message)
        await socket.close()


async def _serve(hub: Hub, socket: LinkSocket, link: AgentLink) -> None:
    recording: asyncio.Task[None] | None = None
    try:
        while (message := await _receive(socket)) is not None:
            if not isinstance(message, Events):
                await _take(hub, link, message)
            elif recording is None or recording.done():
                recording = asyncio.create_task(_record(hub, socket, link, message.events))
            else:
                raise MalformedInputError("link.malformed", "more events before those before are recorded")
    finally:
        if recording is not None:
            recording.cancel()


async def _take(hub: Hub, link: AgentLink, message: AgentMessage) -> None:
    match message:
        case Announce():
            await hub.dispatch.announce(link, message.profiles)
        case Answers():
            for answer in message.items:
                link.told(answer)
        case OutcomeReply():
            link.told_outcome(message)
        case CheckpointAnswer():
            link.told_checkpoint(message)
        case Held():
            await hub.agreement.check_agent_size(message.size)
            link.held_size = message.size
        case UnlockAnswer():
            link.told_unlock(message)
        case TokenReport():
            hub.token_board.report(link.agent.name, message.tokens)
            await hub.dispatch.take_health(link.agent.name, message.tokens)
        case Hello() | Events():
            raise MalformedInputError("link.malformed", "a second hello on the agent link")


async def serve_link(hub: Hub, agent: Enrolment, socket: LinkSocket, *, here: bool) -> None:
    """Speak with an agent that dialled in until the connection is gone, or the agent is refused.

    `here` says that it dialled in from the hub's own host.
    """
    link: AgentLink | None = None
    try:
        link = await _greet(hub, agent, socket, here=here)
        if link is None:
            await socket.receive()  # until the agent hangs up: closing first could lose what was sent
            return
        hub.dispatch.linked(link)
        hub.witnesses.somebody_came()
        _LOG.info("agent linked", agent=agent.name, held_size=link.held_size)
        await _serve(hub, socket, link)
    except PrivysealError as error:
        _LOG.warning("agent refused", agent=agent.name, code=error.code, reason=error.message)
        with suppress(ConnectionError):
            await socket.send_bytes(encode(Refused(code=error.code, message=error.message)))
    except ConnectionError as error:
        _LOG.warning("agent link broke", agent=agent.name, reason=str(error))
    finally:
        if link is not None:
            hub.dispatch.unlinked(link)
            link.close()
            _LOG.info("agent gone", agent=agent.name)


async def _link(call: Call) -> web.StreamResponse:
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES, compress=False)
    await socket.prepare(call.request)
    try:
        here = call.hub.is_here(call.request.remote or "")
        await serve_link(call.hub, call.caller, socket, here=here)
    finally:
        await socket.close()
    return socket


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/agents/link",
        listener=Listener.MTLS,
        permission=Permission.AGENT,
        audit="key, for a new or changed key profile",
        summary="WebSocket: jobs to the agent, signatures back (MessagePack)",
        handler=_link,
    ),
)
