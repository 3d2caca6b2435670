# SPDX-License-Identifier: Apache-2.0
"""The two ends of a USB lease's stream: WebSockets of client and agent, which the hub pairs by the request's id."""

from typing import Final

from aiohttp import web

from privyseal.errors import UnsupportedInputError
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.hub.services.relays import RelayEnd, Side
from privyseal.relay.socket import CLOSE_SECONDS, MAX_FRAME_BYTES, SocketPipe

__all__ = ["ROUTES"]

#: The ends have heartbeats of their own; this one is for a hub that would otherwise keep what both have left.
_HEARTBEAT_SECONDS: Final = 20.0
#: For use by applications (RFC 6455 §7.4.2): the reason says what it is.
_ENDED: Final = 4000
#: A close frame holds 125 bytes, two of them the code.
_MAX_REASON_BYTES: Final = 123


async def _serve(call: Call, side: Side) -> web.StreamResponse:
    relays, request_id = call.hub.relays, call.request.match_info["id"]
    await relays.admit(side, call.caller, request_id)
    socket = web.WebSocketResponse(
        heartbeat=_HEARTBEAT_SECONDS, max_msg_size=MAX_FRAME_BYTES, compress=False, timeout=CLOSE_SECONDS
    )
    if not socket.can_prepare(call.request):
        raise UnsupportedInputError("relay.upgrade", "a stream of a USB lease is a WebSocket (RFC 6455)")
    with relays.place(call.caller):
        await socket.prepare(call.request)
        why = "the hub stops"
        try:
            end = RelayEnd(request_id=request_id, side=side, member=call.caller, pipe=SocketPipe(socket))
            why = await relays.carry(end)
        finally:
            await socket.close(code=_ENDED, message=why.encode()[:_MAX_REASON_BYTES], drain=False)
    return socket


async def _client(call: Call) -> web.StreamResponse:
    return await _serve(call, Side.CLIENT)


async def _agent(call: Call) -> web.StreamResponse:
    return await _serve(call, Side.AGENT)


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/requests/{id}/relay",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="none; the lease has its own",
        summary="WebSocket: the client's end of the stream of its own USB lease; closed to the hub",
        handler=_client,
    ),
    Route(
        method="GET",
        path="/v1/agents/relays/{id}",
        listener=Listener.MTLS,
        permission=Permission.AGENT,
        audit="none; the lease has its own",
        summary="WebSocket: the end of the agent at whose token the request's open job is",
        handler=_agent,
    ),
)
