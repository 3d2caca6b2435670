# SPDX-License-Identifier: Apache-2.0
"""/v1/agents/link: the WebSocket that an agent keeps open."""

from typing import Final

import structlog
from aiohttp import WSMsgType, web

from privyseal.errors import MalformedInputError, PrivysealError
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.hub.links import AgentLink
from privyseal.wire.link import (
    LINK_VERSION,
    MAX_MESSAGE_BYTES,
    AgentMessage,
    Announce,
    Answers,
    CheckpointAnswer,
    Hello,
    HubMessage,
    OutcomeReply,
    Refused,
    TrustChanged,
    Welcome,
    decode_agent,
    encode,
)

__all__ = ["HEARTBEAT_SECONDS", "ROUTES"]

_LOG: Final = structlog.get_logger("privyseal.hub.link")
#: A peer that does not answer a ping within half of this is gone.
HEARTBEAT_SECONDS: Final = 10.0


async def _receive(socket: web.WebSocketResponse) -> AgentMessage | None:
    frame = await socket.receive()
    if frame.type is WSMsgType.BINARY:
        return decode_agent(frame.data)
    if frame.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
        return None
    raise MalformedInputError("link.malformed", f"a {frame.type.name} frame on the agent link")


async def _greet(call: Call, socket: web.WebSocketResponse) -> AgentLink | None:
    """The link, once the agent goes by the same trust bundle; None if it gets the newer one and dials in again."""
    hello = await _receive(socket)
    if not isinstance(hello, Hello) or hello.version != LINK_VERSION:
        raise MalformedInputError("link.version", f"the agent does not speak link version {LINK_VERSION}")

    async def send(message: HubMessage) -> None:
        await socket.send_bytes(encode(message))

    if hello.bundle != call.hub.bundle.sha256:
        await send(TrustChanged(bundle=call.hub.bundle.envelope))
        return None
    await call.hub.check_agent_head(hello.checkpoint_size, hello.checkpoint_root)
    link = AgentLink(
        call.caller,
        send,
        held_size=hello.checkpoint_size,
        witness=hello.witness,
        here=call.hub.is_here(call.request.remote or ""),
    )
    await send(Welcome(name=call.caller.name))
    return link


async def _serve(call: Call, socket: web.WebSocketResponse, link: AgentLink) -> None:
    while (message := await _receive(socket)) is not None:
        match message:
            case Announce():
                await call.hub.dispatch.announce(link, message.profiles)
            case Answers():
                for answer in message.items:
                    link.told(answer)
            case OutcomeReply():
                link.told_outcome(message)
            case CheckpointAnswer():
                link.told_checkpoint(message)
            case Hello():
                raise MalformedInputError("link.malformed", "a second hello on the agent link")


async def _link(call: Call) -> web.StreamResponse:
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_MESSAGE_BYTES, compress=False)
    await socket.prepare(call.request)
    link: AgentLink | None = None
    try:
        link = await _greet(call, socket)
        if link is None:
            await socket.receive()  # until the agent hangs up: closing first could lose what was sent
            return socket
        call.hub.dispatch.linked(link)
        call.hub.witnesses.somebody_came()
        _LOG.info("agent linked", agent=call.caller.name, held_size=link.held_size)
        await _serve(call, socket, link)
    except PrivysealError as error:
        _LOG.warning("agent refused", agent=call.caller.name, code=error.code, reason=error.message)
        await socket.send_bytes(encode(Refused(code=error.code, message=error.message)))
    finally:
        if link is not None:
            call.hub.dispatch.unlinked(link)
            link.close()
            _LOG.info("agent gone", agent=call.caller.name)
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
