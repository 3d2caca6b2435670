# SPDX-License-Identifier: Apache-2.0
"""Whether the hub can sign, at all or for one key profile, and what to do if not."""

import datetime as dt

from privyseal.errors import ConfigError, DeniedError, PrivysealError, TokenError
from privyseal.hub.core import Hub
from privyseal.hub.services.certificates import own_certificate
from privyseal.hub.services.served import ServedProfile

__all__ = ["profile_refusal"]


def profile_refusal(hub: Hub, name: str) -> PrivysealError | None:
    """Why nothing can be signed for a key profile now, or None."""
    if hub.refusal is not None:
        return hub.refusal
    served = hub.dispatch.profile(name)
    if served is None:
        return ConfigError(
            "profile.unknown",
            f"there is no key profile {name!r} at this hub",
            hint="privyseal status lists them",
        )
    return served_refusal(hub, served)


def served_refusal(hub: Hub, served: ServedProfile) -> PrivysealError | None:
    """Why nothing can be signed for a key profile while the hub itself is well, or None."""
    try:
        hub.witnesses.ensure_possible(served.profile)
    except PrivysealError as refusal:
        return refusal
    if (problem := served.problem or _of_certificate(hub, served)) is not None:
        return problem
    return _of_token(hub, served) if served.online else served.offline()


def _of_certificate(hub: Hub, served: ServedProfile) -> DeniedError | None:
    certificate = own_certificate(served.profile)
    now = dt.datetime.fromtimestamp(hub.clock() / 1000, dt.UTC)
    if certificate is not None and now > certificate.not_after:
        return DeniedError(
            "certificate.expired",
            f"the certificate of key profile {served.profile.name!r} has expired",
            hint="import the renewed certificate on the token's host and restart the agent",
        )
    return None


def _of_token(hub: Hub, served: ServedProfile) -> TokenError | None:
    """What the agent says of the token behind the profile."""
    tokens = hub.token_board.tokens.get(served.agent_name, ())
    token = next((one for one in tokens if one.name == served.profile.token), None)
    if token is None or token.state == "ready":
        return None
    return TokenError(
        token.code or "token.not_ready", token.problem or f"token {token.name!r} is {token.state}", hint=token.hint
    )
