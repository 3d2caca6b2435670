# SPDX-License-Identifier: Apache-2.0
"""Whether the hub can sign, at all or for one key profile, and what to do if not."""

import datetime as dt

from privyseal.errors import ConfigError, DeniedError, PrivysealError, TokenError
from privyseal.hub.core import Hub
from privyseal.hub.services.certificates import own_certificate
from privyseal.hub.services.lane import Lane

__all__ = ["lane_refusal", "profile_refusal"]


def profile_refusal(hub: Hub, name: str) -> PrivysealError | None:
    """Why nothing can be signed for a key profile now, or None."""
    if hub.refusal is not None:
        return hub.refusal
    lane = hub.dispatch.lane(name)
    if lane is None:
        return ConfigError(
            "profile.unknown",
            f"there is no key profile {name!r} at this hub",
            hint="privyseal status lists them",
        )
    return lane_refusal(hub, lane)


def lane_refusal(hub: Hub, lane: Lane) -> PrivysealError | None:
    """Why nothing can be signed for a key profile while the hub itself is well, or None."""
    try:
        hub.witnesses.ensure_possible(lane.profile)
    except PrivysealError as refusal:
        return refusal
    if (problem := lane.problem or _of_certificate(hub, lane)) is not None:
        return problem
    return _of_token(hub, lane) if lane.online else lane.offline()


def _of_certificate(hub: Hub, lane: Lane) -> DeniedError | None:
    certificate = own_certificate(lane.profile)
    now = dt.datetime.fromtimestamp(hub.clock() / 1000, dt.UTC)
    if certificate is not None and now > certificate.not_after:
        return DeniedError(
            "certificate.expired",
            f"the certificate of key profile {lane.profile.name!r} has expired",
            hint="import the renewed certificate on the token's host and restart the agent",
        )
    return None


def _of_token(hub: Hub, lane: Lane) -> TokenError | None:
    """What the agent says of the token behind the profile."""
    tokens = hub.token_board.tokens.get(lane.agent_name, ())
    token = next((one for one in tokens if one.serial and one.serial == lane.profile.token_serial), None)
    if token is None or token.state == "ready":
        return None
    return TokenError(
        token.code or "token.not_ready", token.problem or f"token {token.name!r} is {token.state}", hint=token.hint
    )
