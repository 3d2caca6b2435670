# SPDX-License-Identifier: Apache-2.0
"""`privyseal status`."""

import sys
import time
from typing import Annotated

import msgspec
from cyclopts import Parameter

from privyseal.cli.event_lines import event_line
from privyseal.cli.render import emit, say
from privyseal.cli.status_lines import status_lines
from privyseal.client.config import ClientConfig, load_client_config
from privyseal.client.events import follow_events
from privyseal.client.hub import HubClient
from privyseal.client.hub_cell import hub_cell
from privyseal.errors import ConfigError
from privyseal.ports.clock import system_clock

__all__ = ["status"]


def status(
    *,
    watch: Annotated[bool, Parameter(negative="")] = False,
    events: Annotated[bool, Parameter(negative="")] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    config: str = "",
) -> None:
    """Key profiles, tokens and who uses them, queues, last signatures, certificates, agents and the log's head.

    Parameters
    ----------
    watch
        Go on showing it as it changes, until q or Ctrl-C; without a terminal print it again after each change.
    events
        Print what happens at the hub instead, an event a line, until interrupted: tokens, recoveries, PINs, agents,
        certificates that end, and this client's own jobs.
    as_json
        Print one JSON document; with --watch or --events one a line.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    if watch and events:
        raise ConfigError("usage.arguments", "--watch and --events exclude each other")
    client = load_client_config(config)
    if watch:
        from privyseal.cli.status_watch import watch_status  # noqa: PLC0415 - threads and a terminal, for this alone

        watch_status(client, as_json=as_json)
    elif events:
        _print_events(client, as_json=as_json)
    else:
        found = HubClient(client).status()
        emit(msgspec.to_builtins(found), status_lines(found, system_clock()), as_json=as_json)


def _print_events(client: ClientConfig, *, as_json: bool) -> None:
    for event in follow_events(hub_cell(client), wait=time.sleep, trouble=lambda error: say(f"{error.message}; again")):
        emit(msgspec.to_builtins(event), (event_line(event),), as_json=as_json)
        sys.stdout.flush()
