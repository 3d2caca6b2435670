# SPDX-License-Identifier: Apache-2.0
"""The route table's row, and how a row becomes an aiohttp handler.

A route cannot exist without its listener, its permission and its summary; the OpenAPI document is made of the same
rows. Errors leave as RFC 9457 problem documents; only this boundary catches what nobody foresaw.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
import structlog
from aiohttp import web

from privyseal.errors import IdentityError, MalformedInputError, PrivysealError, UnavailableError
from privyseal.hub.core import Hub
from privyseal.hub.http.proofs import Proofs
from privyseal.ports.store import Enrolment
from privyseal.wire.api import Problem, decode_body, problem_from_error

__all__ = ["Call", "Handler", "Listener", "Permission", "Route", "application", "json_response"]

T = TypeVar("T")
_LOG: Final = structlog.get_logger("privyseal.hub.http")
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024
_HTTP_CODES: Final = {404: "http.not_found", 405: "http.method", 413: "http.too_large"}


class Listener(Enum):
    """Where a route answers; each route at exactly one."""

    MTLS = "mtls"
    WEB = "web"
    PROXIED = "proxied"  #: what clients find at `mtls`, behind a proxy that ends TLS: see `Route.is_at`


class Permission(Enum):
    """Who may call a route."""

    ANYONE = "anyone"  #: no identity; what arrives proves itself (a join secret, authority signatures) or is public
    CLIENT = "client"
    AGENT = "agent"
    MEMBER = "member"  #: client or agent


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request on its way through a handler."""

    hub: Hub
    request: web.Request
    member: Enrolment | None

    @property
    def caller(self) -> Enrolment:
        """The member that called; only on routes that demand one."""
        if self.member is None:
            raise IdentityError("identity.missing", "this route needs a client certificate")
        return self.member

    async def body(self, kind: type[T]) -> T:
        """The JSON body.

        Raises:
            MalformedInputError: `body.malformed`; `body.unfinished` if the connection was lost before all of it came.
        """
        try:
            data = await self.request.read()
        except ConnectionError as error:  # nobody hears of it
            raise MalformedInputError(
                "body.unfinished", "the connection was lost before the whole body had come", hint="send it again"
            ) from error
        return decode_body(data, kind)


#: A handler answers with a body to be sent as JSON, or with a finished response.
Handler = Callable[[Call], Awaitable[msgspec.Struct | web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the route table.

    Attributes:
        audit: What a call leaves in the log, in words; `none` says that it leaves nothing.
        body, answer: JSON types for OpenAPI; None where it is not JSON.
    """

    method: str
    path: str
    listener: Listener
    permission: Permission
    audit: str
    summary: str
    handler: Handler
    body: type[Any] | None = None
    answer: type[Any] | None = None

    def is_at(self, listener: Listener) -> bool:
        """Whether the route answers there. Only clients can prove who they are through a proxy."""
        if listener is Listener.PROXIED:
            return self.listener is Listener.MTLS and self.permission in (Permission.CLIENT, Permission.MEMBER)
        return self.listener is listener


def json_response(body: msgspec.Struct, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _problem(error: PrivysealError) -> web.Response:
    problem = problem_from_error(error)
    after = problem.retry_after_seconds
    return web.Response(
        body=msgspec.json.encode(problem),
        status=problem.status,
        content_type="application/problem+json",
        headers=None if after is None else {"Retry-After": str(math.ceil(after))},
    )


#: Who sent a request.
_Identify = Callable[[web.Request], Awaitable[Enrolment]]


async def _by_certificate(hub: Hub, request: web.Request) -> Enrolment:
    tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    if certificate is None:
        raise IdentityError("identity.missing", "this route needs a client certificate")
    return await hub.enrolments.by_certificate(certificate)


async def _member(identify: _Identify, request: web.Request, permission: Permission) -> Enrolment | None:
    if permission is Permission.ANYONE:
        return None
    member = await identify(request)
    if permission is not Permission.MEMBER and member.role != permission.value:
        raise IdentityError("identity.role", f"{member.role} {member.name!r} may not use this route")
    return member


def _bound(route: Route, hub: Hub, identify: _Identify) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            member = await _member(identify, request, route.permission)
            answer = await route.handler(Call(hub=hub, request=request, member=member))
        except PrivysealError as error:
            if error.http_status >= 500:
                _LOG.warning("refused", path=route.path, code=error.code, reason=error.message)
            elif isinstance(error, IdentityError) or (route.permission is Permission.ANYONE and route.method != "GET"):
                hub.denials.count_stranger(error.code)
            return _problem(error)
        except web.HTTPException:
            raise
        except Exception as error:  # noqa: BLE001 - the request boundary: nothing of what went wrong may leak to the caller
            if not isinstance(error, ConnectionError) or request.transport is not None:  # else whoever asked has gone
                _LOG.exception("failed", path=route.path)
            return _problem(UnavailableError("hub.failed", "the hub failed on this request; its own log says why"))
        return json_response(answer) if isinstance(answer, msgspec.Struct) else answer

    return handle


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What aiohttp refuses by itself leaves as a problem document, too."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = _HTTP_CODES.get(error.status, "http.refused")
        problem = Problem(
            title=error.reason, status=error.status, code=code, branch="malformed", detail=error.text or error.reason
        )
        body = msgspec.json.encode(problem)
        return web.Response(body=body, status=error.status, content_type="application/problem+json")


def application(hub: Hub, listener: Listener, routes: tuple[Route, ...]) -> web.Application:
    """The aiohttp application of one listener."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_problems])
    identify = Proofs(hub).member if listener is Listener.PROXIED else partial(_by_certificate, hub)
    for route in routes:
        if route.is_at(listener):
            app.router.add_route(route.method, route.path, _bound(route, hub, identify))
    return app
