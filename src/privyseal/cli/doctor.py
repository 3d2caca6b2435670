# SPDX-License-Identifier: Apache-2.0
"""`privyseal doctor`."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit
from privyseal.client.config import find_client_config
from privyseal.client.diagnosis import client_rows
from privyseal.client.diagnosis_hub import HubProbe, hub_rows
from privyseal.client.diagnosis_tsa import check_tsa
from privyseal.errors import ConfigError, PrivysealError
from privyseal.identity.bundle import load_bundle
from privyseal.ports.clock import Clock, system_clock
from privyseal.ports.diagnosis import Row, Verdict

__all__ = ["Part", "diagnose", "doctor"]

_HUB, _AGENT, _CLIENT = "hub.toml", "agent.toml", "client.toml"
_WORDS: Final = {Verdict.PASS: "ok", Verdict.WARN: "WARN", Verdict.FAIL: "FAIL", Verdict.SKIP: "skip"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One role that this machine has, and what was found.

    Attributes:
        role: `hub`, `agent` or `client`.
        place: Its directory or configuration.
    """

    role: str
    place: Path
    rows: tuple[Row, ...]


def doctor(
    *,
    directory: Annotated[Path | None, Parameter(name="--dir")] = None,
    login: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
    config: str = "",
) -> int:
    """Look at everything that signing depends on here, and say what is wrong and what to do.

    Changes nothing. Exit code 0 if nothing failed, else that of the first fail.

    Parameters
    ----------
    directory
        Directory of a hub, of an agent, or of `up`.
    login
        Also log in to the agent's tokens, once each, with the PIN file and through the PIN journal.
    as_json
        Print one JSON document.
    config
        Client configuration (default: the one in DIR, then PRIVYSEAL_CONFIG, then the usual places).
    """
    parts = diagnose(directory, config, login=login)
    status = next((row.exit_status for part in parts for row in part.rows if row.exit_status), 0)
    emit(_document(parts, status), _lines(parts), as_json=as_json)
    return status


def diagnose(
    directory: Path | None, config: str, *, login: bool = False, clock: Clock = system_clock
) -> tuple[Part, ...]:
    """Find out which roles this machine has, and look at each.

    Raises:
        ConfigError: `config.missing` if it has none.
    """
    parts: list[Part] = []
    if directory is not None:
        if (hub := _place(directory, "hub", _HUB)) is not None:
            parts.append(Part(role="hub", place=hub, rows=_hub_rows(hub, clock)))
        if (agent := _place(directory, "agent", _AGENT)) is not None:
            parts.append(Part(role="agent", place=agent, rows=_agent_rows(agent, clock, login=login)))
    client = _client_config(directory, config, needed=not parts)
    if client is not None:
        parts.append(Part(role="client", place=client, rows=client_rows(str(client), clock)))
    return tuple(parts)


def _place(directory: Path, role: str, name: str) -> Path | None:
    """The directory of a role: that which was given, or the one that `up` makes in it."""
    return next((place for place in (directory, directory / role) if (place / name).is_file()), None)


def _client_config(directory: Path | None, config: str, *, needed: bool) -> Path | None:
    if not config and directory is not None and (directory / _CLIENT).is_file():
        return directory / _CLIENT
    try:
        return find_client_config(config)
    except PermissionError:
        if needed or config:
            raise
        return None  # a service's account need not see the machine's client configuration
    except ConfigError as error:
        if config:
            raise
        if not needed:
            return None
        if directory is None:
            raise
        raise ConfigError(
            "config.missing",
            f"{directory} holds none of {_HUB}, {_AGENT} and {_CLIENT}, and no client configuration is in force",
            hint="name a hub's, an agent's or a client's directory with --dir, or a client.toml with --config",
        ) from error


def _hub_rows(directory: Path, clock: Clock) -> tuple[Row, ...]:
    """The hub's own rows, then the TSAs that it asks for its clients."""
    from privyseal.hub.config import load_hub_config  # noqa: PLC0415 - extra `hub`
    from privyseal.hub.diagnosis import hub_rows as rows_of_hub  # noqa: PLC0415

    rows = rows_of_hub(directory, clock)
    try:
        asked = load_hub_config(directory).tsa
    except PrivysealError:
        return rows  # the first row says so
    return (*rows, *(check_tsa(table.url) for table in asked))


def _agent_rows(directory: Path, clock: Clock, *, login: bool) -> tuple[Row, ...]:
    """The agent's own rows, then those that the hub's web listener tells of it."""
    from privyseal.agent.config import AgentFiles, load_agent_config  # noqa: PLC0415 - extra `agent`
    from privyseal.agent.diagnosis import agent_rows  # noqa: PLC0415

    rows = asyncio.run(agent_rows(directory, clock, login=login))
    files = AgentFiles(directory)
    try:
        probe = HubProbe(load_agent_config(directory).web, load_bundle(files.bundle), clock)
    except PrivysealError:
        return rows  # the first row says so
    rejoin = f"ask an administrator for a new join code, then: privyseal agent join --dir {directory}"
    return (*rows, *hub_rows(probe, files.tls_certificate, rejoin))


def _document(parts: tuple[Part, ...], status: int) -> dict[str, object]:
    rows = [
        {
            "role": part.role,
            "place": str(part.place),
            "subject": row.subject,
            "verdict": row.verdict.value,
            "found": row.found,
            "next": row.next_step,
            "code": row.code,
        }
        for part in parts
        for row in part.rows
    ]
    return {"sound": status == 0, "exit": status, "rows": rows}


def _lines(parts: tuple[Part, ...]) -> Iterator[str]:
    for part in parts:
        yield f"{part.role}: {part.place}"
        width = max(len(row.subject) for row in part.rows)
        for row in part.rows:
            yield f"  {_WORDS[row.verdict]:<4}  {row.subject:<{width}}  {_found(row)}"
            if row.next_step:
                yield f"        {'':<{width}}  next: {row.next_step}"
        yield ""
    yield from _summary(tuple((part.role, row) for part in parts for row in part.rows))


def _found(row: Row) -> str:
    return row.found + (f" [{row.code}]" if row.code else "")


def _summary(rows: tuple[tuple[str, Row], ...]) -> Iterator[str]:
    """The count, and last of all, where a tired eye looks, what to begin with."""
    counts = {one: sum(row.verdict is one for _, row in rows) for one in Verdict}
    yield (
        f"{counts[Verdict.FAIL]} failed, {counts[Verdict.WARN]} to look into, "
        f"{counts[Verdict.SKIP]} not looked at, {counts[Verdict.PASS]} sound"
    )
    for verdict in (Verdict.FAIL, Verdict.WARN):
        for role, row in rows:
            if row.verdict is verdict:
                yield f"begin with: {role}, {row.subject}: {_found(row)}"
                yield f"      next: {row.next_step}"
                return
