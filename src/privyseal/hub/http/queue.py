# SPDX-License-Identifier: Apache-2.0
"""/v1/queue, and the events of one request: what waits, and how far it is."""

import asyncio
from contextlib import suppress
from typing import Final

import msgspec
from aiohttp import web

from privyseal.errors import PrivysealError
from privyseal.hub.http import sse
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.hub.services.queue_views import is_news
from privyseal.wire.queue import QueueView, RequestProgress, RequestRecord

__all__ = ["ROUTES"]

#: How often it is looked whether others have moved a request's place.
_LOOK_SECONDS: Final = 2.0
#: Of many changes in a row the last one is enough.
_GATHER_SECONDS: Final = 0.25


async def _list(call: Call) -> msgspec.Struct:
    query = call.request.query
    return await call.hub.queue_views.listing(query.get("profile", ""), query.get("id", ""))


async def _show(call: Call) -> msgspec.Struct:
    return await call.hub.queue_views.record(call.caller, call.request.match_info["id"])


def _event(progress: RequestProgress) -> bytes:
    name = "done" if progress.state == "done" else "progress"
    return sse.event_lines(name, msgspec.json.encode(progress))


async def _follow(call: Call, response: web.StreamResponse, progress: RequestProgress, news: asyncio.Event) -> None:
    """Tell how far a request is until it is done, or the connection is gone. Nothing is kept for who reads slowly.

    Raises:
        TimeoutError: it does not read. ConnectionError: it is gone. PrivysealError: the caller may not go on.
    """
    loop = asyncio.get_running_loop()
    told: RequestProgress | None = None
    told_s = written_s = loop.time()
    while call.request.transport is not None:
        if is_news(told, progress, loop.time() - told_s):
            await sse.write(response, _event(progress))
            told, told_s = progress, loop.time()
            written_s = told_s
        elif loop.time() - written_s >= sse.HEARTBEAT_SECONDS:
            await sse.write(response, sse.HEARTBEAT)
            written_s = loop.time()
        if progress.state == "done":
            return
        await asyncio.sleep(_GATHER_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await news.wait()
        news.clear()
        progress = await call.hub.queue_views.progress(call.caller, progress.id)


async def _events(call: Call) -> web.StreamResponse:
    views, request_id = call.hub.queue_views, call.request.match_info["id"]
    with views.watching(call.caller, request_id) as news:
        progress = await views.progress(call.caller, request_id)  # refused before the stream begins
        response = sse.new_stream()
        try:
            await sse.begin(response, call.request)
            await _follow(call, response, progress, news)
        except TimeoutError:
            if call.request.transport is not None:
                call.request.transport.abort()
        except (ConnectionError, PrivysealError):
            pass  # it is gone, or comes back and is told why not
        return response


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/queue",
        listener=Listener.MTLS,
        permission=Permission.MEMBER,
        audit="none",
        summary="All requests that wait or are under way; ?profile=NAME, ?id=BEGINNING; `cut` if there are more",
        handler=_list,
        answer=QueueView,
    ),
    Route(
        method="GET",
        path="/v1/queue/{id}",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="none",
        summary="The caller's own request, by the beginning of its id: where each item stands, and what became of it",
        handler=_show,
        answer=RequestRecord,
    ),
    Route(
        method="GET",
        path="/v1/signatures/{id}/events",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="none",
        summary="Server-sent events of one request: `progress` (a RequestProgress), and `done`, which is the last one",
        handler=_events,
    ),
)
