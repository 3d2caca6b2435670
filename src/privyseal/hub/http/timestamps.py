# SPDX-License-Identifier: Apache-2.0
"""/v1/timestamps: RFC 3161 timestamps through the hub, for clients without a way out."""

from typing import Final

import msgspec

from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.wire.api import TimestampRequest, TimestampView

__all__ = ["ROUTES"]


async def _create(call: Call) -> msgspec.Struct:
    call.hub.ensure_signing()
    body = await call.body(TimestampRequest)
    return await call.hub.timestamps.create(call.caller, body.request)


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
)
