# SPDX-License-Identifier: Apache-2.0
"""`privyseal config`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit
from privyseal.client.config import load_client_config

__all__ = ["check", "show"]


def show(*, as_json: AsJson = False, config: str = "") -> None:
    """The client configuration in force, and from which file it comes.

    Parameters
    ----------
    as_json
        Print one JSON document.
    config
        Client configuration (default: PRIVYSEAL_CONFIG, then the usual places).
    """
    loaded = load_client_config(config)
    data = {
        "file": str(loaded.path),
        "name": loaded.name,
        "hub": list(loaded.hub_urls),
        "web": list(loaded.web_urls),
        "proxied": loaded.proxied,
        "hub_ca": "" if loaded.hub_ca is None else str(loaded.hub_ca),
        "identity": str(loaded.identity.directory),
        "trust": [str(path) for path in loaded.trust],
        "wait_seconds": loaded.wait_seconds,
        "timestamp": list(loaded.timestamp),
        "timestamp_via": loaded.timestamp_via,
    }
    emit(
        data,
        (f"{name:<13} {', '.join(value) if isinstance(value, list) else value}" for name, value in data.items()),
        as_json=as_json,
    )


def check(
    *,
    agent: Annotated[Path | None, Parameter(name="--agent")] = None,
    hub: Annotated[Path | None, Parameter(name="--hub")] = None,
    as_json: AsJson = False,
    config: str = "",
) -> None:
    """Read a configuration as the programs do, and say what is wrong with it.

    Parameters
    ----------
    agent
        An agent's directory.
    hub
        A hub's directory.
    as_json
        Print one JSON document.
    config
        A client configuration; the one in force if neither --agent nor --hub is given.
    """
    checked: list[str] = []
    if agent is not None:
        from privyseal.agent.config import load_agent_config, token_config  # noqa: PLC0415 - extra `agent`

        for token in load_agent_config(agent).token:
            token_config(token, agent)
        checked.append(str(agent / "agent.toml"))
    if hub is not None:
        from privyseal.hub.config import load_hub_config  # noqa: PLC0415 - extra `hub`

        load_hub_config(hub)
        checked.append(str(hub / "hub.toml"))
    if config or not checked:
        loaded = load_client_config(config)
        loaded.load_bundle()
        checked.append(str(loaded.path))
    emit({"checked": checked, "sound": True}, (f"{path}: sound" for path in checked), as_json=as_json)
