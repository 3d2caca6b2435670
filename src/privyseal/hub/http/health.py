# SPDX-License-Identifier: Apache-2.0
"""/livez, /readyz and /metrics: what watches a hub asks, on the web listener."""

from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

import msgspec
from aiohttp import web

from privyseal.errors import DeniedError
from privyseal.hub.http.routes import Call, Listener, Permission, Route, json_response
from privyseal.hub.metrics import CONTENT_TYPE, exposition
from privyseal.hub.readiness import profile_refusal
from privyseal.wire.api import Health

__all__ = ["ROUTES", "is_allowed"]


async def _livez(_call: Call) -> msgspec.Struct:
    return Health(status="ok")


async def _readyz(call: Call) -> msgspec.Struct | web.Response:
    name = call.request.query.get("profile")
    refusal = call.hub.refusal if name is None else profile_refusal(call.hub, name)
    if refusal is not None:
        told = Health(status="unready", code=refusal.code, reason=refusal.message, next=refusal.hint)
        return json_response(told, HTTPStatus.SERVICE_UNAVAILABLE)
    return Health(status="ok")


def is_allowed(address: str, allow: tuple[str, ...]) -> bool:
    """Whether an address is of one of these networks; an IPv4 address stays one behind a socket for both kinds."""
    try:
        asked: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(asked, IPv6Address) and asked.ipv4_mapped is not None:
        asked = asked.ipv4_mapped
    return any(asked in ip_network(network) for network in allow)


async def _metrics(call: Call) -> web.Response:
    address = call.request.remote or ""
    if not is_allowed(address, call.hub.config.metrics.allow):
        raise DeniedError(
            "metrics.address",
            f"/metrics is not shown to {address}",
            hint="an administrator adds the address to `allow` under [metrics] in hub.toml",
        )
    return web.Response(body=await exposition(call.hub), headers={"Content-Type": CONTENT_TYPE})


ROUTES: Final = (
    Route(
        method="GET",
        path="/livez",
        listener=Listener.WEB,
        permission=Permission.ANYONE,
        audit="none",
        summary="The process answers",
        handler=_livez,
        answer=Health,
    ),
    Route(
        method="GET",
        path="/readyz",
        listener=Listener.WEB,
        permission=Permission.ANYONE,
        audit="none",
        summary="The hub can sign; ?profile=NAME asks for one key profile. 503 says why not, and what to do",
        handler=_readyz,
        answer=Health,
    ),
    Route(
        method="GET",
        path="/metrics",
        listener=Listener.WEB,
        permission=Permission.ANYONE,
        audit="none",
        summary="Metrics in Prometheus' text format, for the networks that hub.toml allows",
        handler=_metrics,
    ),
)
