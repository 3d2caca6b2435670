# SPDX-License-Identifier: Apache-2.0
"""The parts of `privyseal status` that a tired person must not overlook: tokens, and certificates that end."""

from collections.abc import Iterator
from typing import Final

from privyseal.cli.render import table
from privyseal.wire.api import CertificateWarning, ProfileStatus, TokenStatus
from privyseal.wire.members import MemberStatus

__all__ = ["certificate_lines", "token_lines"]

_PINS: Final = {
    "": "?",
    "ok": "ok",
    "count-low": "COUNT LOW",
    "final-try": "FINAL TRY",
    "locked": "LOCKED",
}
_RENEW: Final = "order the renewal now, put it on the token or into the chain file, and restart the agent"


def certificate_lines(warnings: tuple[CertificateWarning, ...]) -> Iterator[str]:
    """Certificates that end within 60 days, the most urgent first."""
    for one in warnings:
        days = "today" if one.days == 0 else "in 1 day" if one.days == 1 else f"in {one.days} days"
        which = f"{one.profile} ({one.token})"
        if one.level == "expired":
            yield f"EXPIRED  certificate of {which} ended on {one.not_after[:10]}: nothing is signed with it"
        else:
            yield f"{one.level.upper():7}  certificate of {which} ends {days}, on {one.not_after[:10]}"
    if any(one.level != "notice" for one in warnings):
        yield f"  next: {_RENEW}"


def pool_lines(profiles: tuple[ProfileStatus, ...]) -> Iterator[str]:
    """The tokens of each key profile that has several, and why one of them does not sign."""
    for profile in profiles:
        if len(profile.members) <= 1:
            continue
        yield f"  {profile.name} is a pool:"
        rows = [
            (
                f"    {one.token}",
                _member_state(one),
                f"{one.subject}, until {one.not_after[:10]}" if one.subject else "no certificate",
            )
            for one in profile.members
        ]
        yield from table(rows)
        for one in profile.members:
            if one.problem:
                yield f"    {one.token}: {one.problem} [{one.code}]"
                if one.hint:
                    yield f"      next: {one.hint}"


def _member_state(member: MemberStatus) -> str:
    if not member.online:
        return "cannot sign" if member.problem else "agent offline"
    return "ready" if member.is_asked else "not for new requests"


def token_lines(tokens: tuple[TokenStatus, ...]) -> Iterator[str]:
    """A row for each token, and below them why one is not ready."""
    if not tokens:
        return
    rows = [("TOKEN", "AGENT", "STATE", "PIN", "RECOVERIES", "SIGNED", "FAILED", "TIME P50/P99", "SERIAL")]
    rows += [
        (
            one.token,
            one.agent,
            one.state if one.linked else "agent offline",
            _PINS.get(one.pin_state, one.pin_state),
            _recoveries(one),
            str(one.signatures),
            str(one.failures),
            _times(one),
            one.serial or "-",
        )
        for one in tokens
    ]
    yield from table(rows)
    for one in tokens:
        if one.problem or one.state != "ready":
            yield f"  {one.token}: {one.problem or one.state}" + (f" [{one.code}]" if one.code else "")
            if one.hint:
                yield f"    next: {one.hint}"
        if one.relocation and one.state == "ready":
            yield f"  {one.token}: may be in another place ({', '.join(one.relocation)}); custody is unproven"
            yield f"    next: if that is right, on the token's host: privyseal token resume {one.token} --dir DIR"


def _times(token: TokenStatus) -> str:
    """Times are counted in classes: a time is known to lie within its class's bound."""
    if not token.signatures or token.p50_seconds is None:
        return "-"
    return f"≤{_seconds(token.p50_seconds)} / " + (
        ">30 s" if token.p99_seconds is None else f"≤{_seconds(token.p99_seconds)}"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"


def _recoveries(token: TokenStatus) -> str:
    steps = [f"{step} {times}" for step, times in sorted(token.recoveries.items()) if times]
    return ", ".join(steps) or "none"
