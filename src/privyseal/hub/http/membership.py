# SPDX-License-Identifier: Apache-2.0
"""The web listener's part of enrolment: trust bundle, authority statements, joining, certificate state."""

from typing import Final

import msgspec
from aiohttp import web

from privyseal.errors import MalformedInputError
from privyseal.hub.http.routes import Call, Listener, Permission, Route
from privyseal.identity.authority import Revocation
from privyseal.wire.membership import CertificateState, Decreed, JoinRequest, JoinResponse, UnlockView

__all__ = ["ROUTES"]


async def _bundle(call: Call) -> web.Response:
    return web.Response(body=call.hub.bundle.envelope, content_type="application/json")


async def _change_bundle(call: Call) -> msgspec.Struct:
    bundle = await call.hub.change_trust(await call.request.read())
    return Decreed(statement=bundle.sha256.hex(), authorities=())


async def _decree(call: Call) -> msgspec.Struct:
    signed = await call.hub.enrolments.decree(await call.request.read())
    if isinstance(signed.statement, Revocation):
        await call.hub.revoked(signed.statement.role, signed.statement.name)
    return Decreed(statement=signed.sha256.hex(), authorities=signed.authorities)


async def _unlock(call: Call) -> msgspec.Struct:
    return await call.hub.unlocks.take(await call.request.read())


async def _join(call: Call) -> msgspec.Struct:
    joined = await call.hub.enrolments.join(await call.body(JoinRequest))
    return JoinResponse(
        certificate=joined.certificate_pem,
        role=joined.enrolment.role,
        name=joined.enrolment.name,
        profiles=joined.enrolment.profiles,
        mtls_urls=call.hub.config.urls_for(joined.enrolment.role),
        checkpoint=joined.checkpoint,
    )


async def _certificate(call: Call) -> msgspec.Struct:
    text = call.request.match_info["sha256"]
    try:
        fingerprint = bytes.fromhex(text)
    except ValueError:
        fingerprint = b""
    if len(fingerprint) != 32:
        raise MalformedInputError("query.sha256", f"{text!r} is not a SHA-256 in hex")
    return CertificateState(state=await call.hub.enrolments.certificate_state(fingerprint))


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/bundle",
        listener=Listener.WEB,
        permission=Permission.ANYONE,
        audit="none",
        summary="The trust bundle, signed by authority keys; believed by the hash in a join code",
        handler=_bundle,
    ),
    Route(
        method="PUT",
        path="/v1/bundle",
        listener=Listener.WEB,
        permission=Permission.ANYONE,
        audit="admin (bundle)",
        summary="Put another trust bundle in its place; the signatures of the present one's authority keys permit it",
        handler=_change_bundle,
        answer=Decreed,
    ),
    Route(
        method="POST",
        path="/v1/authority",
        listener=Listener.WEB,
        permission=Permission.ANYONE,
        audit="grant, enrol (revoke), admin (queue-cancel, queue-move); an invitation leaves its hash in the enrol"
        " entry of who joins",
        summary="Hand in an authority statement; its signatures are its permission",
        handler=_decree,
        answer=Decreed,
    ),
    Route(
        method="POST",
        path="/v1/unlocks",
        listener=Listener.WEB,
        permission=Permission.ANYONE,
        audit="pin (unlocked), by the agent",
        summary="Ask an agent for a nonce, or hand it a sealed PIN; authority signatures are the permission",
        handler=_unlock,
        answer=UnlockView,
    ),
    Route(
        method="POST",
        path="/v1/join",
        listener=Listener.WEB,
        permission=Permission.ANYONE,
        audit="enrol",
        summary="Redeem a join code for a TLS certificate",
        handler=_join,
        body=JoinRequest,
        answer=JoinResponse,
    ),
    Route(
        method="GET",
        path="/v1/certificates/{sha256}",
        listener=Listener.WEB,
        permission=Permission.ANYONE,
        audit="none",
        summary="Whether the TLS certificate with this SHA-256 stands",
        handler=_certificate,
        answer=CertificateState,
    ),
)
