# SPDX-License-Identifier: Apache-2.0
"""/v1/timestamps and /v1/anchors: RFC 3161 timestamps through the hub, for clients and for the log itself."""

from typing import Final

import msgspec

from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.wire.api import AnchorView, TimestampRequest, TimestampView

__all__ = ["ROUTES"]


async def _create(call: Call) -> msgspec.Struct:
    call.hub.ensure_signing()
    body = await call.body(TimestampRequest)
    return await call.hub.timestamps.create(call.caller, body.request)


async def _anchor(call: Call) -> msgspec.Struct:
    call.hub.ensure_signing()
    return await call.hub.anchors.create(call.caller)


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/timestamps",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="timestamp; deny if refused",
        summary="Have the hub ask its TSAs for an RFC 3161 timestamp",
        handler=_create,
        body=TimestampRequest,
        answer=TimestampView,
    ),
    Route(
        method="POST",
        path="/v1/anchors",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="anchor; deny if refused",
        summary="Have a TSA timestamp the log's newest checkpoint",
        handler=_anchor,
        answer=AnchorView,
    ),
)
