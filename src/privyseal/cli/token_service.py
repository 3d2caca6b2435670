# SPDX-License-Identifier: Apache-2.0
"""`privyseal token drain`, `resume`, `recycle` and `reset`: what the agent that runs does with one of its tokens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit
from privyseal.errors import UnavailableError

if TYPE_CHECKING:
    from privyseal.agent.token_commands import Serviced

__all__ = ["drain", "recycle", "reset", "resume"]

_Directory = Annotated[Path, Parameter(name="--dir")]

#: What an agent that does not run means for each command.
_NOT_RUNNING: Final = {
    "drain": "no token is in use, and none can be taken out of use",
    "resume": "no token is in use, and none can be taken back",
    "recycle": "there is no worker to replace",
    "reset": "nobody here holds a token that could be reset",
}


def drain(name: str, /, *, directory: _Directory, as_json: AsJson = False) -> None:
    """Take a token out of use once what it is signing has ended. It stays so, also after a restart, until `resume`.

    Parameters
    ----------
    name
        Name of the token in agent.toml.
    directory
        The agent's directory.
    as_json
        Print one JSON document.
    """
    done = _ask("drain", name, directory)
    _tell(done, directory, "it is out of use, also after a restart", as_json=as_json)


def resume(name: str, /, *, directory: _Directory, as_json: AsJson = False) -> None:
    """Take a token back into use that was drained or is in quarantine, as the one that it is now.

    Parameters
    ----------
    name
        Name of the token in agent.toml.
    directory
        The agent's directory.
    as_json
        Print one JSON document.
    """
    done = _ask("resume", name, directory)
    _tell(done, directory, "it is back in use", as_json=as_json)


def recycle(name: str, /, *, directory: _Directory, as_json: AsJson = False) -> None:
    """Replace a token's workers between two jobs: new processes load its module and log in.

    Parameters
    ----------
    name
        Name of the token in agent.toml.
    directory
        The agent's directory.
    as_json
        Print one JSON document.
    """
    done = _ask("recycle", name, directory)
    _tell(done, directory, "its workers were replaced", as_json=as_json)


def reset(name: str, /, *, directory: _Directory, as_json: AsJson = False) -> None:
    """Reset a token's USB device if agent.toml names it; otherwise replace its workers.

    Parameters
    ----------
    name
        Name of the token in agent.toml.
    directory
        The agent's directory.
    as_json
        Print one JSON document.
    """
    done = _ask("reset", name, directory)
    what = (
        "its USB device was reset" if done.step == "usb-reset" else "its workers were replaced; `usb` names no device"
    )
    _tell(done, directory, what, as_json=as_json)


def _ask(command: str, name: str, directory: Path) -> "Serviced":
    from privyseal.agent.token_commands import ServiceArguments, Serviced  # noqa: PLC0415 - extra `agent`
    from privyseal.cli.agent_control import agent_runs, ask_agent  # noqa: PLC0415
    from privyseal.cli.token_host import named_token  # noqa: PLC0415

    named_token(directory, name)
    if not agent_runs(directory):
        raise UnavailableError(
            "agent.not_running",
            f"no agent runs in {directory}: {_NOT_RUNNING[command]}",
            hint=f"privyseal agent run --dir {directory}; then once more",
        )
    return ask_agent(directory, command, ServiceArguments(token=name), Serviced)


def _tell(done: "Serviced", directory: Path, what: str, *, as_json: bool) -> None:
    """One line for what was done, one for what comes next."""
    if done.state == "drained":
        following = f"privyseal token resume {done.token} --dir {directory} takes it into use"
    elif done.profiles:
        following = f"key profiles that sign with it: {done.profiles}; privyseal token list --dir {directory} shows it"
    else:
        following = "none of its key profiles can sign; privyseal status says why"
    serial = f", serial {done.serial}" if done.serial else ""
    data = {
        "token": done.token,
        "serial": done.serial,
        "state": done.state,
        "profiles": done.profiles,
        "step": done.step,
    }
    emit(data, (f"token {done.token}{serial}: {what}", f"next: {following}"), as_json=as_json)
