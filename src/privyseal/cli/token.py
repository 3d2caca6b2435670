# SPDX-License-Identifier: Apache-2.0
"""`privyseal token`: on the token's host."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit, table
from privyseal.errors import ConfigError, PrivysealError

__all__ = ["list", "unlock"]


def list(  # noqa: A001 - the command's name
    *, directory: Annotated[Path, Parameter(name="--dir")], as_json: AsJson = False
) -> None:
    """The configured tokens and what each says of itself. Logs in to none.

    Parameters
    ----------
    directory
        The agent's directory.
    as_json
        Print one JSON document.
    """
    tokens = asyncio.run(_tokens(directory))
    rows = [("NAME", "STATE", "LABEL", "SERIAL", "MODEL", "PIN")]
    rows += [(one["name"], one["state"], one["label"], one["serial"], one["model"], one["pin_state"]) for one in tokens]
    emit({"tokens": tokens}, table(rows), as_json=as_json)


async def _tokens(directory: Path) -> Any:
    from privyseal.agent.config import load_agent_config, token_config  # noqa: PLC0415 - extra `agent`
    from privyseal.tokens.factory import open_token  # noqa: PLC0415

    found = []
    for configured in load_agent_config(directory).token:
        token = open_token(token_config(configured, directory))
        row = {
            "name": configured.name,
            "state": "present",
            "label": "",
            "serial": "",
            "model": "",
            "pin_state": "",
        }
        try:
            info = await token.info()
        except PrivysealError as error:
            row["state"] = str(error)
        else:
            row |= {
                "label": info.label,
                "serial": info.serial,
                "model": info.model,
                "pin_state": info.pin_state.value,
                "hardware": str(info.hardware).lower(),
            }
        finally:
            await token.close()
        found.append(row)
    return found


def unlock(
    name: str,
    /,
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    forgive_refused: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Allow PIN attempts again, after a refused one or one whose outcome nobody knows.

    Make sure of the PIN first: a token locks itself after a few wrong ones. Restart the agent afterwards.

    Parameters
    ----------
    name
        Name of the token in agent.toml.
    directory
        The agent's directory.
    forgive_refused
        Also allow the very PIN that the token refused: you have set it on the token meanwhile.
    as_json
        Print one JSON document.
    """
    serial = asyncio.run(_unlock(name, directory, forgive_refused=forgive_refused))
    emit(
        {"token": name, "serial": serial, "unlocked": True},
        (f"token {name} (serial {serial}): the next login may present its PIN again",),
        as_json=as_json,
    )


async def _unlock(name: str, directory: Path, *, forgive_refused: bool) -> str:
    from privyseal.agent.config import AgentFiles, load_agent_config, token_config  # noqa: PLC0415 - extra `agent`
    from privyseal.tokens.factory import open_token  # noqa: PLC0415
    from privyseal.tokens.pin_journal import PinJournal  # noqa: PLC0415

    tokens = {one.name: one for one in load_agent_config(directory).token}
    if name not in tokens:
        raise ConfigError(
            "token.unknown", f"agent.toml names no token {name!r}; it names {', '.join(tokens) or 'none'}"
        )
    token = open_token(token_config(tokens[name], directory))
    try:
        serial = (await token.info()).serial
    finally:
        await token.close()
    PinJournal(str(AgentFiles(directory).pin_journal.resolve())).clear(serial, forgive_refused=forgive_refused)
    return serial
