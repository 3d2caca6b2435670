# SPDX-License-Identifier: Apache-2.0
"""/v1/signatures, /v1/profiles and /v1/status: what a client asks."""

import datetime as dt
import math
from typing import Final

import msgspec
from aiohttp import web
from cryptography import x509

import privyseal
from privyseal.errors import ConfigError, MalformedInputError
from privyseal.hub.http.routes import Call, Listener, Permission, Route, json_response
from privyseal.hub.services.lane import Lane
from privyseal.ports.store import Enrolment, ReadTx
from privyseal.wire.api import (
    AgentStatus,
    HubStatus,
    ProfileStatus,
    ProfileView,
    RequestView,
    SignatureRequest,
)

__all__ = ["ROUTES"]

_MAX_WAIT_SECONDS: Final = 60.0


def _wait_seconds(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _MAX_WAIT_SECONDS:
        raise MalformedInputError("query.wait", f"wait={text!r} is not a time of 0 to 60 seconds")
    return seconds


async def _answer(call: Call, request_id: str, *, fresh: bool = False) -> web.Response:
    view = await call.hub.requests.wait(call.caller, request_id, _wait_seconds(call.request), fresh=fresh)
    response = json_response(view, 202 if view.state == "waiting" else 200)
    response.headers["Location"] = f"/v1/signatures/{request_id}"
    return response


async def _create(call: Call) -> web.Response:
    call.hub.ensure_signing()
    body = await call.body(SignatureRequest)
    _wait_seconds(call.request)  # refused before anything is signed
    accepted = await call.hub.requests.submit(call.caller, body)
    return await _answer(call, accepted.request_id, fresh=accepted.fresh)


async def _show(call: Call) -> web.Response:
    return await _answer(call, call.request.match_info["id"])


async def _profile(call: Call) -> msgspec.Struct:
    name = call.request.match_info["name"]
    lane = call.hub.dispatch.lane(name)
    if lane is None:
        known = ", ".join(one.profile.name for one in call.hub.dispatch.lanes)
        raise ConfigError(
            "profile.unknown",
            f"there is no key profile {name!r} at this hub",
            hint=f"known key profiles: {known or 'none; no agent has announced one yet'}",
        )
    if lane.problem is not None:
        raise lane.problem
    return ProfileView(
        name=name,
        level=lane.profile.level,
        opaque=lane.profile.opaque,
        hardware=lane.profile.hardware,
        chain=lane.profile.chain,
        online=lane.online,
    )


async def _status(call: Call) -> msgspec.Struct:
    hub = call.hub
    lanes = hub.dispatch.lanes  # as they are now: an agent may announce another while the database is read

    async def read(tx: ReadTx) -> tuple[tuple[Enrolment, ...], list[int]]:
        last = 2**62
        return await tx.enrolments(), [await tx.queued_before(lane.profile.name, last) for lane in lanes]

    enrolments, queued = await hub.store.read(read)
    linked = hub.dispatch.linked_agents
    return HubStatus(
        hub=hub.bundle.hub,
        version=privyseal.__version__,
        client=call.caller.name,
        log_size=hub.store.head.size,
        log_root=hub.store.head.root.hex(),
        profiles=tuple(_profile_status(lane, count) for lane, count in zip(lanes, queued, strict=True)),
        agents=tuple(
            AgentStatus(name=one.name, linked=one.name in linked)
            for one in enrolments
            if one.role == "agent" and one.revoked_ms is None
        ),
    )


def _profile_status(lane: Lane, queued: int) -> ProfileStatus:
    subject, not_after = "", ""
    if lane.profile.chain:
        certificate = x509.load_der_x509_certificate(lane.profile.chain[0])
        subject = certificate.subject.rfc4514_string()
        not_after = certificate.not_valid_after_utc.astimezone(dt.UTC).isoformat()
    return ProfileStatus(
        name=lane.profile.name,
        level=lane.profile.level,
        hardware=lane.profile.hardware,
        token_label=lane.profile.token_label,
        agent=lane.agent_name,
        online=lane.online,
        problem="" if lane.problem is None else str(lane.problem),
        queued=queued,
        subject=subject,
        not_after=not_after,
    )


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/signatures",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="intent, result, unknown; deny if refused",
        summary="Ask for signatures; ?wait=SECONDS waits for them, 202 says where to ask again",
        handler=_create,
        body=SignatureRequest,
        answer=RequestView,
    ),
    Route(
        method="GET",
        path="/v1/signatures/{id}",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="none",
        summary="What became of a request; ?wait=SECONDS waits",
        handler=_show,
        answer=RequestView,
    ),
    Route(
        method="GET",
        path="/v1/profiles/{name}",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="none",
        summary="A key profile: its certificate chain and level",
        handler=_profile,
        answer=ProfileView,
    ),
    Route(
        method="GET",
        path="/v1/status",
        listener=Listener.MTLS,
        permission=Permission.MEMBER,
        audit="none",
        summary="Key profiles, agents, queues and the log's head",
        handler=_status,
        answer=HubStatus,
    ),
)
