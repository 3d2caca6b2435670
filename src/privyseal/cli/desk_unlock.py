# SPDX-License-Identifier: Apache-2.0
"""`privyseal token unlock --agent`: from a desk with authority keys. Needs no extra."""

from privyseal.cli.prompts import read_pin
from privyseal.cli.render import emit
from privyseal.client.administration import Administration
from privyseal.errors import DeniedError

__all__ = ["unlock_from_desk"]


def unlock_from_desk(name: str, agent: str, *, desk: Administration, forgive_refused: bool, as_json: bool) -> None:
    """Ask the agent, have the PIN typed, and hand it in.

    Raises:
        ConfigError: `unlock.agent_unknown`, `pin.no_terminal`, `pin.empty`. PrivysealError: what hub and agent say.
    """
    asked = desk.ask_unlock(agent, name)
    pin = read_pin(f"{name} (serial {asked.serial}, at agent {agent})", option="")
    try:
        # The person may have taken longer than a nonce is good for.
        fresh = desk.ask_unlock(agent, name)
        if fresh.serial != asked.serial:
            raise DeniedError("unlock.serial", f"another token is there now: serial {fresh.serial}; nothing was sent")
        done = desk.unlock(fresh, pin, forgive_refused=forgive_refused)
    finally:
        pin[:] = bytes(len(pin))
    emit(
        {"agent": agent, "token": name, "serial": done.serial, "unlocked": True, "tried": True},
        (f"token {name} at agent {agent}, serial {done.serial}: it took its PIN; signing keys: {done.keys}",),
        as_json=as_json,
    )
