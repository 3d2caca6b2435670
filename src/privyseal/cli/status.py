# SPDX-License-Identifier: Apache-2.0
"""`privyseal status`."""

from typing import Annotated

import msgspec
from cyclopts import Parameter

from privyseal.cli.render import emit, table
from privyseal.client.config import load_client_config
from privyseal.client.hub import HubClient
from privyseal.wire.api import AgentStatus, HubStatus

__all__ = ["status"]


def status(*, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False, config: str = "") -> None:
    """Key profiles, agents, queues and the log's head, as the hub sees them.

    Parameters
    ----------
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    found = HubClient(load_client_config(config)).status()
    emit(msgspec.to_builtins(found), _lines(found), as_json=as_json)


def _lines(found: HubStatus) -> list[str]:
    lines = [
        f"hub     {found.hub} (version {found.version}), asked as client {found.client}",
        f"log     {found.log_size} entries, root {found.log_root[:16]}…",
        f"agents  {', '.join(f'{one.name} ({_linked(one)})' for one in found.agents) or 'none'}",
        "",
    ]
    rows = [("KEY PROFILE", "STATE", "LEVEL", "TOKEN", "QUEUE", "CERTIFICATE")]
    rows += [
        (
            one.name + (" (test)" if one.test else ""),
            "ready" if one.online else "not served" if one.problem else "agent offline",
            one.level if one.witness == "off" else f"{one.level}, witnesses {one.witness}",
            one.token_label + ("" if one.hardware else " (not hardware)"),
            str(one.queued),
            f"{one.subject}, until {one.not_after[:10]}" if one.subject else "none",
        )
        for one in found.profiles
    ]
    lines.extend(table(rows) if len(rows) > 1 else ["no key profiles: no agent has announced one yet"])
    problems = [f"{one.name}: {one.problem}" for one in found.profiles if one.problem and not one.online]
    lines += ["", *problems] if problems else []
    if found.tsas:
        tsas = [(one.url, one.state, one.problem or "none") for one in found.tsas]
        lines += ["", *table([("TSA", "STATE", "LAST FAILURE"), *tsas])]
    if found.witnesses:
        witnesses = [(one.name, str(one.size or "-"), one.problem or "none") for one in found.witnesses]
        lines += ["", *table([("WITNESS", "COSIGNED", "LAST FAILURE"), *witnesses])]
    if any(one.level == "traced" for one in found.profiles):
        lines += [
            "",
            "traced: a hub that was taken over could use the token, and every use would stay provable.",
        ]
    if any(one.test for one in found.profiles):
        lines += ["", "test: its signatures are for trying things out; do not give them to anybody."]
    return lines


def _linked(agent: AgentStatus) -> str:
    if not agent.linked:
        return "no link"
    return "linked, on the hub's host" if agent.here else "linked"
