# SPDX-License-Identifier: Apache-2.0
"""`privyseal token`: on the token's host."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from privyseal.cli.authority import AsJson, Authority, administration
from privyseal.cli.enduring import test
from privyseal.cli.render import emit, table
from privyseal.cli.scanning import scan
from privyseal.cli.token_service import drain, recycle, reset, resume
from privyseal.errors import ConfigError, PrivysealError

__all__ = ["add", "drain", "list", "recycle", "reset", "resume", "scan", "test", "unlock"]


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


def add(  # noqa: PLR0913 - a command's options
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    module: Path | None = None,
    name: str = "",
    token_label: str = "",
    serial: str = "",
    key_id: str = "",
    profile: str = "",
    pin_file: Path | None = None,
    test: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Find a token, show its keys and certificates, and append `[[token]]` and `[[key]]` to agent.toml.

    Logs in once, with the PIN of --pin-file, or with one that is typed at the terminal and then kept in a file of mode
    0600 beside agent.toml. Run it as the user that runs the agent.

    Parameters
    ----------
    directory
        The agent's directory.
    module
        The PKCS#11 module; otherwise the usual places are searched.
    name
        Name of the token in agent.toml; by default from its label.
    token_label
        Which token, by its label.
    serial
        Which token, by its serial number.
    key_id
        Which key, by its CKA_ID in hex; needed if the token has several.
    profile
        Name of the key profile; by default from the key's label.
    pin_file
        A file of mode 0600 that holds the PIN and nothing else.
    test
        The profile is for trying things out: marked everywhere, and refused under a public CA's certificate.
    yes
        Append without asking.
    as_json
        Print one JSON document.
    """
    from privyseal.cli.adding import AddRequest, add_token  # noqa: PLC0415 - extra `agent`

    asked = AddRequest(
        directory=directory,
        module=None if module is None else module.absolute(),
        name=name,
        token_label=token_label,
        serial=serial,
        key_id=key_id,
        profile=profile,
        test=test,
        pin_file=pin_file,
    )
    add_token(asked, yes=yes, as_json=as_json)


def unlock(  # noqa: PLR0913 - a command's options
    name: str = "",
    /,
    *,
    serial: str = "",
    directory: Annotated[Path | None, Parameter(name="--dir")] = None,
    prompt: Annotated[bool, Parameter(negative="")] = False,
    forgive_refused: Annotated[bool, Parameter(negative="")] = False,
    agent: str = "",
    authority: Authority = (),
    bundle: Path | None = None,
    as_json: AsJson = False,
    config: str = "",
) -> None:
    """Allow PIN attempts again, after a refused one or one whose outcome nobody knows; or hand a PIN in.

    Make sure of the PIN first: a token locks itself after a few wrong ones. An agent that runs tries it at once.

    On the token's host, give --dir. From a desk with an authority key, give --agent: the PIN is typed, sealed to that
    agent, and passed on by the hub, which cannot read it.

    Parameters
    ----------
    name
        Name of the token in agent.toml.
    serial
        Instead of a name: the serial number of a token that is not in agent.toml yet.
    directory
        The agent's directory.
    prompt
        Ask for the PIN on the terminal and hand it to the agent that runs, which holds it until it stops. By itself for
        a token with `pin_prompt`.
    forgive_refused
        Also allow the very PIN that the token refused: you have set it on the token meanwhile.
    agent
        From a desk: the agent's name. The trust bundle names its sealing key (privyseal hub trust --agent).
    authority
        From a desk: authority key file, may be repeated (default: authority.key beside the client configuration).
    bundle
        From a desk: the trust bundle to go by, instead of the one that the client pinned.
    as_json
        Print one JSON document.
    config
        From a desk: client configuration that knows the hub.
    """
    if bool(name) == bool(serial):
        raise ConfigError(
            "usage.arguments", "name the token, or give its --serial", hint="privyseal token unlock NAME --dir DIR"
        )
    if agent:
        if directory is not None or not name:
            raise ConfigError("usage.arguments", "at a desk, name the token and its --agent; --dir is for its host")
        from privyseal.cli.desk_unlock import unlock_from_desk  # noqa: PLC0415 - hot commands import late

        unlock_from_desk(
            name,
            agent,
            desk=administration(authority, config, bundle),
            forgive_refused=forgive_refused,
            as_json=as_json,
        )
    elif directory is None:
        raise ConfigError(
            "usage.arguments", "where is the token?", hint="--dir DIR on its host, or --agent NAME at a desk"
        )
    elif serial:
        _unlock_serial(directory, serial, prompt=prompt, forgive_refused=forgive_refused, as_json=as_json)
    else:
        _unlock_name(directory, name, prompt=prompt, forgive_refused=forgive_refused, as_json=as_json)


def _unlock_serial(directory: Path, serial: str, *, prompt: bool, forgive_refused: bool, as_json: bool) -> None:
    from privyseal.cli.token_pins import unlock_serial  # noqa: PLC0415 - extra `agent`

    if prompt:
        raise ConfigError("usage.arguments", "a PIN is handed in for a token that has a name in agent.toml")
    unlock_serial(directory, serial, forgive_refused=forgive_refused)
    data = {"token": "", "serial": serial, "unlocked": True, "tried": False}
    emit(data, (f"serial {serial}: the next login may present its PIN again",), as_json=as_json)


def _unlock_name(directory: Path, name: str, *, prompt: bool, forgive_refused: bool, as_json: bool) -> None:
    from privyseal.cli.token_pins import unlock_here  # noqa: PLC0415 - extra `agent`

    done = unlock_here(directory, name, prompt=prompt, forgive_refused=forgive_refused)
    data = {"token": name, "serial": done.serial, "unlocked": True, "tried": done.tried}
    lines = [f"token {name}, serial {done.serial}: the token took its PIN; signing keys: {done.keys}"]
    if not done.tried:
        lines = [
            f"token {name}, serial {done.serial}: the next login may present its PIN again",
            f"no agent runs here; next: privyseal agent run --dir {directory}",
        ]
    emit(data, lines, as_json=as_json)
