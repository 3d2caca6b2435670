# SPDX-License-Identifier: Apache-2.0
"""What `privyseal status` says, as lines."""

from collections.abc import Iterator
from typing import Final

from privyseal.cli.device_lines import device_lines
from privyseal.cli.render import table
from privyseal.cli.status_queue import queue_lines, signature_lines, use_lines
from privyseal.cli.status_tokens import certificate_lines, pool_lines, token_lines
from privyseal.wire.api import AgentStatus, HubStatus, ProfileStatus

__all__ = ["status_lines"]

#: What is not ready for another reason than its token's.
_STATES: Final = {"agent.offline": "agent offline", "certificate.expired": "expired"}


def status_lines(found: HubStatus, now_ms: int) -> list[str]:
    """What a hub says of itself, for people; what cannot wait stands first."""
    parts = (
        _head(found),
        certificate_lines(found.certificates),
        _profiles(found),
        device_lines(found.devices, now_ms),
        token_lines(found.tokens),
        use_lines(found.tokens, now_ms),
        queue_lines(found.profiles, now_ms),
        signature_lines(found.signatures, now_ms),
        _tsas(found),
        _witnesses(found),
        _notes(found),
    )
    lines: list[str] = []
    for part in parts:
        rows = list(part)
        lines += ["", *rows] if lines and rows else rows
    return lines


def _head(found: HubStatus) -> Iterator[str]:
    yield f"hub     {found.hub} (version {found.version}), asked as client {found.client}"
    yield f"log     {found.log_size} entries, root {found.log_root[:16]}…"
    yield f"agents  {', '.join(f'{one.name} ({_linked(one)})' for one in found.agents) or 'none'}"


def _linked(agent: AgentStatus) -> str:
    if not agent.linked:
        return "no link"
    return "linked, on the hub's host" if agent.here else "linked"


def _profiles(found: HubStatus) -> Iterator[str]:
    rows = [("KEY PROFILE", "STATE", "LEVEL", "TOKEN", "CERTIFICATE")]
    rows += [
        (
            one.name + (" (test)" if one.test else ""),
            _state(one),
            one.level if one.witness == "off" else f"{one.level}, witnesses {one.witness}",
            one.token_label + ("" if one.hardware else " (not hardware)"),
            f"{one.subject}, until {one.not_after[:10]}" if one.subject else "none",
        )
        for one in found.profiles
    ]
    if len(rows) > 1:
        yield from table(rows)
    elif not found.devices:
        yield "no key profiles: no agent has announced one yet"
    yield from pool_lines(found.profiles)
    for one in found.profiles:
        if one.problem:
            yield f"  {one.name}: {one.problem}"
            if one.hint:
                yield f"    next: {one.hint}"


def _state(profile: ProfileStatus) -> str:
    if not profile.problem:
        return "ready"
    return _STATES.get(profile.code, "cannot sign" if profile.online else "not served")


def _tsas(found: HubStatus) -> Iterator[str]:
    if found.tsas:
        rows = [(one.url, one.state, one.problem or "none") for one in found.tsas]
        yield from table([("TSA", "STATE", "LAST FAILURE"), *rows])


def _witnesses(found: HubStatus) -> Iterator[str]:
    if found.witnesses:
        rows = [(one.name, str(one.size or "-"), one.problem or "none") for one in found.witnesses]
        yield from table([("WITNESS", "COSIGNED", "LAST FAILURE"), *rows])


def _notes(found: HubStatus) -> Iterator[str]:
    if any(one.level == "traced" for one in found.profiles):
        yield "traced: a hub that was taken over could use the token, and every use would stay provable."
    if any(one.test for one in found.profiles):
        yield "test: its signatures are for trying things out; do not give them to anybody."
