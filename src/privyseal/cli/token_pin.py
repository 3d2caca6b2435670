# SPDX-License-Identifier: Apache-2.0
"""`privyseal token pin`: on the token's host."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit

__all__ = ["change"]


def change(
    name: str,
    /,
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    new_pin_file: Path | None = None,
    as_json: AsJson = False,
) -> None:
    """Give a token another PIN. The new one is typed twice; the present one comes from where agent.toml says.

    Logs in with the present PIN first. A PIN file holds the new PIN afterwards; in a credential or a keyring you put it
    yourself.

    Parameters
    ----------
    name
        Name of the token in agent.toml.
    directory
        The agent's directory.
    new_pin_file
        A file of mode 0600 that holds the new PIN and nothing else; nothing is asked then.
    as_json
        Print one JSON document.
    """
    from privyseal.cli.token_pins import change_here  # noqa: PLC0415 - extra `agent`

    done = change_here(directory, name, new_pin_file)
    kept = f"it is in {done.kept} now" if done.kept else "put the new PIN to where agent.toml says the PIN comes from"
    emit(
        {"token": name, "serial": done.serial, "changed": True, "kept": done.kept},
        (f"token {name}, serial {done.serial}: the PIN was changed; {kept}",),
        as_json=as_json,
    )
