# SPDX-License-Identifier: Apache-2.0
"""`privyseal status`."""

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter

from privyseal.cli.event_lines import event_line
from privyseal.cli.render import emit, say, table
from privyseal.cli.status_tokens import certificate_lines, token_lines
from privyseal.client.config import load_client_config
from privyseal.client.events import follow_events
from privyseal.client.hub import HubClient
from privyseal.client.hub_cell import hub_cell
from privyseal.wire.api import AgentStatus, HubStatus, ProfileStatus

__all__ = ["status"]

#: What is not ready for another reason than its token's.
_STATES: Final = {"agent.offline": "agent offline", "certificate.expired": "expired"}


def status(
    *,
    events: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Key profiles, tokens, agents, queues, certificates and the log's head, as the hub sees them.

    Parameters
    ----------
    events
        Print what happens at the hub instead, an event a line, until interrupted: tokens, recoveries, PINs, agents,
        certificates that end, and this client's own jobs.
    as_json
        Print one JSON document; with --events one a line.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    client = load_client_config(config)
    if events:
        for event in follow_events(
            hub_cell(client), wait=time.sleep, trouble=lambda error: say(f"{error.message}; again")
        ):
            emit(msgspec.to_builtins(event), (event_line(event),), as_json=as_json)
            sys.stdout.flush()
        return
    found = HubClient(client).status()
    emit(msgspec.to_builtins(found), _lines(found), as_json=as_json)


def _lines(found: HubStatus) -> list[str]:
    parts = (
        _head(found),
        certificate_lines(found.certificates),
        _profiles(found),
        token_lines(found.tokens),
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
    rows = [("KEY PROFILE", "STATE", "LEVEL", "TOKEN", "QUEUE", "CERTIFICATE")]
    rows += [
        (
            one.name + (" (test)" if one.test else ""),
            _state(one),
            one.level if one.witness == "off" else f"{one.level}, witnesses {one.witness}",
            one.token_label + ("" if one.hardware else " (not hardware)"),
            str(one.queued),
            f"{one.subject}, until {one.not_after[:10]}" if one.subject else "none",
        )
        for one in found.profiles
    ]
    yield from table(rows) if len(rows) > 1 else ("no key profiles: no agent has announced one yet",)
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
