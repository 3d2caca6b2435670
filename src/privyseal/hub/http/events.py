# SPDX-License-Identifier: Apache-2.0
"""/v1/events: what happens at the hub, as server-sent events (WHATWG HTML §9.2).

Each listener has a task of its own and a place in the ring of events; nobody waits for it. A comment every few seconds
keeps the connection; one that takes nothing for a while, or has fallen behind the ring, is ended.
"""

import asyncio
from typing import Final

from aiohttp import web

from privyseal.hub.core import Hub
from privyseal.hub.http import sse
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.hub.services.event_stream import EventStream, Sent, Subscription
from privyseal.wire.events import GapEvent, encode_event, event_name

__all__ = ["ROUTES"]

#: How soon it is noticed that a listener has hung up.
_LOOK_SECONDS: Final = 1.0


def _lines(sent: Sent) -> bytes:
    return sse.event_lines(sent.name, sent.data, sent.id)


def _gap(hub: Hub) -> bytes:
    gap = GapEvent(at=hub.clock())
    return sse.event_lines(event_name(gap), encode_event(gap))


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
        if not found and loop.time() - written_s < sse.HEARTBEAT_SECONDS:
            continue
        await sse.write(response, b"".join(map(_lines, found)) or sse.HEARTBEAT)
        written_s = loop.time()


async def _events(call: Call) -> web.StreamResponse:
    stream = call.hub.observer.stream
    subscription = stream.subscribe(call.caller.name, call.request.headers.get("Last-Event-ID", ""))
    dropped = False
    response = sse.new_stream()
    try:
        await sse.begin(response, call.request, _gap(call.hub) if subscription.missed else b"")
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
