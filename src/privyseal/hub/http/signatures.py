# SPDX-License-Identifier: Apache-2.0
"""/v1/signatures and /v1/profiles: what a client asks."""

import math
from dataclasses import replace
from typing import Final

import msgspec
from aiohttp import web

from privyseal.errors import ConfigError, MalformedInputError
from privyseal.hub.http.routes import Call, Listener, Permission, Route, json_response
from privyseal.hub.services.views import Question
from privyseal.wire.api import ProfileView, RequestView, SignatureRequest
from privyseal.wire.statement import MAX_ITEMS

__all__ = ["ROUTES"]

_MAX_WAIT_SECONDS: Final = 60.0


def _number(request: web.Request, name: str, default: float, most: float, *, whole: bool = True) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most:
        raise MalformedInputError(f"query.{name}", f"{name}={text!r} is not a number from 0 to {most:.0f}")
    return number


def _question(request: web.Request, request_id: str) -> Question:
    return Question(
        request_id=request_id,
        first=int(_number(request, "from", 0, MAX_ITEMS)),
        enough=int(_number(request, "enough", 1, MAX_ITEMS)),
        seconds=_number(request, "wait", 0.0, _MAX_WAIT_SECONDS, whole=False),
    )


async def _answer(call: Call, question: Question, *, fresh: bool = False) -> web.Response:
    view = await call.hub.views.wait(call.caller, question, fresh=fresh)
    response = json_response(view, 202 if view.state == "waiting" else 200)
    response.headers["Location"] = f"/v1/signatures/{question.request_id}"
    return response


async def _create(call: Call) -> web.Response:
    call.hub.ensure_signing()
    body = await call.body(SignatureRequest)
    question = _question(call.request, "")  # refused before anything is signed
    accepted = await call.hub.requests.submit(call.caller, body)
    return await _answer(call, replace(question, request_id=accepted.request_id), fresh=accepted.fresh)


async def _show(call: Call) -> web.Response:
    return await _answer(call, _question(call.request, call.request.match_info["id"]))


async def _cancel(call: Call) -> msgspec.Struct:
    request_id = call.request.match_info["id"]
    await call.hub.withdrawals.cancel(call.caller, request_id)
    return await call.hub.views.view(call.caller, Question(request_id=request_id))


async def _profile(call: Call) -> msgspec.Struct:
    name = call.request.match_info["name"]
    served = call.hub.dispatch.profile(name)
    if served is None:
        known = ", ".join(one.name for one in call.hub.dispatch.profiles if not one.profile.is_device)
        raise ConfigError(
            "profile.unknown",
            f"there is no key profile {name!r} at this hub",
            hint=f"known key profiles: {known or 'none; no agent has announced one yet'}",
        )
    if served.profile.is_device:
        raise ConfigError(
            "profile.device",
            f"{name!r} is a USB device, which is lent, and no key profile",
            hint=f"privyseal device attach {name} borrows it; privyseal status lists the key profiles",
        )
    if served.problem is not None:
        raise served.problem
    return ProfileView(
        name=name,
        level=served.profile.level,
        opaque=served.profile.opaque,
        hardware=served.profile.hardware,
        witness=served.profile.witness,
        bundle=call.hub.bundle.sha256,
        test=served.profile.test,
        chain=served.profile.chain,
        others=served.other_chains,
        online=served.online,
        longest_seconds=call.hub.config.queue.longest_seconds,
    )


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/signatures",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="intent, result, unknown; deny if refused",
        summary="Ask for signatures; ?wait=SECONDS&enough=N waits for N of them, 202 says where to ask again",
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
        summary="What became of a request's items ?from=N on; ?wait=SECONDS&enough=N waits for N of them",
        handler=_show,
        answer=RequestView,
    ),
    Route(
        method="DELETE",
        path="/v1/signatures/{id}",
        listener=Listener.MTLS,
        permission=Permission.CLIENT,
        audit="result (not-used) for what stood prepared",
        summary="Cancel a request: what the token has not begun of it is not signed any more",
        handler=_cancel,
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
)
