# SPDX-License-Identifier: Apache-2.0
"""/v1/events: what happens at the hub, as server-sent events (WHATWG HTML §9.2).

Each listener has a task of its own and a place in the ring of events; nobody waits for it. A comment every few seconds
keeps the connection; one that takes nothing for a while, or has fallen behind the ring, is ended.
"""

import asyncio
from typing import Final

from aiohttp import web

from privyseal.hub.core import Hub
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.hub.services.event_stream import EventStream, Sent, Subscription
from privyseal.wire.events import GapEvent, encode_event, event_name

__all__ = ["HEARTBEAT_SECONDS", "ROUTES"]

HEARTBEAT_SECONDS: Final = 10.0
#: How soon it is noticed that a listener has hung up.
_LOOK_SECONDS: Final = 1.0
#: How long a listener may leave what was sent to it lying.
_WRITE_SECONDS: Final = 20.0
#: Bytes on their way to one listener, before it counts as slow.
_BUFFER_BYTES: Final = 64 * 1024
_RETRY_MS: Final = 2000


def _lines(sent: Sent) -> bytes:
    return f"id: {sent.id}\nevent: {sent.name}\ndata: ".encode() + sent.data + b"\n\n"


def _gap(hub: Hub) -> bytes:
    gap = GapEvent(at=hub.clock())
    return f"event: {event_name(gap)}\ndata: ".encode() + encode_event(gap) + b"\n\n"


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_WRITE_SECONDS):
        await response.write(data)


async def _next(stream: EventStream, subscription: Subscription) -> tuple[Sent, ...] | None:
    """The next events; none if there are none within a moment."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            return await stream.next(subscription)
    except TimeoutError:
        return ()


async def _serve(call: Call, subscription: Subscription, response: web.StreamResponse) -> None:
    """Tell events until the connection is gone.

    Raises:
        TimeoutError: the listener fell too far behind.
    """
    loop = asyncio.get_running_loop()
    written_s = loop.time()
    while call.request.transport is not None:
        found = await _next(call.hub.observer.stream, subscription)
        if found is None:
            raise TimeoutError
        if not found and loop.time() - written_s < HEARTBEAT_SECONDS:
            continue
        await _write(response, b"".join(map(_lines, found)) or b":\n\n")
        written_s = loop.time()


async def _events(call: Call) -> web.StreamResponse:
    stream = call.hub.observer.stream
    subscription = stream.subscribe(call.caller.name, call.request.headers.get("Last-Event-ID", ""))
    dropped = False
    try:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(call.request)
        if call.request.transport is not None:
            call.request.transport.set_write_buffer_limits(high=_BUFFER_BYTES)
        await _write(response, f"retry: {_RETRY_MS}\n\n".encode() + (_gap(call.hub) if subscription.missed else b""))
        await _serve(call, subscription, response)
    except TimeoutError:
        dropped = True
    except ConnectionError:
        pass
    finally:
        stream.unsubscribe(subscription, dropped=dropped)
    if dropped and call.request.transport is not None:
        call.request.transport.abort()
    return response


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/events",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="none",
        summary="Server-sent events: tokens, agents, certificates, and the caller's own jobs; Last-Event-ID resumes",
        handler=_events,
    ),
)
