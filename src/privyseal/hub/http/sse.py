# SPDX-License-Identifier: Apache-2.0
"""Server-sent events (WHATWG HTML §9.2), as every stream of the hub writes them.

A comment every few seconds keeps the connection; who leaves what was sent lying for a while is let go.
"""

import asyncio
from typing import Final

from aiohttp import web

__all__ = ["HEARTBEAT", "HEARTBEAT_SECONDS", "begin", "event_lines", "new_stream", "write"]

HEARTBEAT: Final = b":\n\n"
HEARTBEAT_SECONDS: Final = 10.0
#: How long a listener may leave what was sent to it lying.
_WRITE_SECONDS: Final = 20.0
#: Bytes on their way to one listener, before it counts as slow.
_BUFFER_BYTES: Final = 64 * 1024
_RETRY_MS: Final = 2000


def event_lines(name: str, data: bytes, event_id: str = "") -> bytes:
    """One event whose data is a line of JSON."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {name}\ndata: ".encode() + data + b"\n\n"


def new_stream() -> web.StreamResponse:
    """A stream that has not begun."""
    return web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})


async def begin(response: web.StreamResponse, request: web.Request, first: bytes = b"") -> None:
    """Begin a stream: say when to come back, should it break off, and what is to be said first.

    Raises:
        TimeoutError, ConnectionError: as `write`.
    """
    await response.prepare(request)
    if request.transport is not None:
        request.transport.set_write_buffer_limits(high=_BUFFER_BYTES)
    await write(response, f"retry: {_RETRY_MS}\n\n".encode() + first)


async def write(response: web.StreamResponse, data: bytes) -> None:
    """Send to a listener.

    Raises:
        TimeoutError: it does not read. ConnectionError: it is gone.
    """
    async with asyncio.timeout(_WRITE_SECONDS):
        await response.write(data)
