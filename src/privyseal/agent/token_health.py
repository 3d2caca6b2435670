# SPDX-License-Identifier: Apache-2.0
"""How a token is, in the words of the agent link."""

from privyseal.agent.keys import SeenToken
from privyseal.agent.pool import KeptToken
from privyseal.agent.token_custody import TokenCustody
from privyseal.errors import PrivysealError
from privyseal.wire.link import TokenHealth

__all__ = ["token_health"]


def token_health(
    name: str,
    state: str,
    problem: PrivysealError | None,
    *,
    seen: SeenToken | None,
    serial: str,
    token: KeptToken,
    custody: TokenCustody,
) -> TokenHealth:
    """What the hub is told of a token.

    Args:
        name: In agent.toml.
        state: As in `TokenHealth`.
        problem: Why it is not ready.
        seen: What it said of itself last.
        serial: Its serial number, also while it is not there.
        token: Counts what it did.
        custody: Knows its own count of signatures, and what speaks against its place.
    """
    signing = token.signing
    return TokenHealth(
        name=name,
        state=state,
        label=seen.info.label if seen else "",
        serial=serial,
        model=seen.info.model if seen else "",
        hardware=seen.info.hardware if seen else False,
        code=problem.code if problem else "",
        problem=problem.message if problem else "",
        hint=problem.hint if problem else "",
        pin_state=seen.info.pin_state.value if seen else "",
        signatures=signing.signatures,
        failures=signing.failures,
        restarts=token.starts,
        recoveries={rung.value: count for rung, count in signing.steps.items()},
        sign_seconds=signing.seconds,
        sign_counts=tuple(signing.counts),
        counter=custody.counter,
        trouble=token.trouble,
        relocation=tuple(signal.value for signal in custody.place.standing),
    )
