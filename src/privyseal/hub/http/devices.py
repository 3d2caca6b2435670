# SPDX-License-Identifier: Apache-2.0
"""/v1/devices: the USB devices that agents lend, who has one, and who waits for it."""

from typing import Final

import msgspec

from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.wire.devices import DevicesView

__all__ = ["ROUTES"]


async def _list(call: Call) -> msgspec.Struct:
    return DevicesView(
        devices=await call.hub.devices.listing(),
        bundle=call.hub.bundle.sha256,
        longest_seconds=call.hub.config.queue.longest_seconds,
    )


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/devices",
        listener=Listener.MTLS,
        permission=Permission.MEMBER,
        audit="none",
        summary="USB devices that agents lend: who has one, since when, why, until when at most, and who waits for it",
        handler=_list,
        answer=DevicesView,
    ),
)
