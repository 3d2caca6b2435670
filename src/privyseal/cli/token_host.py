# SPDX-License-Identifier: Apache-2.0
"""What the commands on a token's host share: the token of agent.toml, opened, and one of its keys.

Everything here needs the extra `agent`.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from privyseal.agent.config import TokenTable, load_agent_config, token_config
from privyseal.cli.prompts import read_pin
from privyseal.errors import ConfigError, TokenError
from privyseal.ports.token import TokenKey
from privyseal.tokens.factory import open_token
from privyseal.tokens.pin import PinBuffer
from privyseal.tokens.supervisor import WorkerToken

__all__ = ["choose_key", "named_token", "opened", "parse_key_id", "typed_pin"]


def named_token(directory: Path, name: str) -> TokenTable:
    """A `[[token]]` of agent.toml; the only one if no name is given.

    Raises:
        ConfigError: `token.unknown`.
    """
    tokens = load_agent_config(directory).token
    found = [one for one in tokens if name in ("", one.name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(one.name for one in tokens) or "none"
    raise ConfigError(
        "token.unknown",
        f"agent.toml names no token {name!r}; it names {known}"
        if name
        else f"which token? agent.toml names {known}; say --token",
        hint="privyseal token add puts a token into agent.toml",
    )


def typed_pin(typed: bytearray) -> PinBuffer:
    """What a person typed, in locked memory, and nowhere else any more.

    Raises:
        TokenError: `token.pin_missing`, `token.pin_file` if it cannot be a PIN.
    """
    pin = PinBuffer()
    try:
        pin.fill(typed)
    finally:
        typed[:] = bytes(len(typed))
    return pin


@contextlib.asynccontextmanager
async def opened(directory: Path, name: str, *, login: bool = True) -> AsyncIterator[WorkerToken]:
    """The token, closed afterwards. Logs in with its first call that needs it, through the PIN journal.

    Args:
        directory: The agent's.
        name: Of the token.
        login: Whether there will be such a call: the PIN of a token with `pin_prompt` is asked for then.

    Raises:
        ConfigError: `token.unknown`, `pin.no_terminal`, `pin.empty`.
    """
    table = named_token(directory, name)
    pin = typed_pin(read_pin(table.name, option="")) if login and table.pin_prompt else None
    token = open_token(token_config(table, directory), pin=pin)
    try:
        yield token
    finally:
        await token.close()


def parse_key_id(text: str) -> bytes:
    """A CKA_ID in hex; empty for none.

    Raises:
        ConfigError: `usage.key_id`.
    """
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ConfigError("usage.key_id", f"{text!r} is not a CKA_ID in hex", hint="for example --id 01") from None


def choose_key(keys: tuple[TokenKey, ...], key_id: bytes) -> TokenKey:
    """The key with this CKA_ID; the only one if none is given.

    Raises:
        TokenError: `token.key_not_found`, `token.key_ambiguous`.
    """
    found = [key for key in keys if key_id in (b"", key.key_id)]
    if len(found) == 1:
        return found[0]
    present = ", ".join(f"{key.key_id.hex()} ({key.label})" for key in keys) or "none"
    raise TokenError(
        "token.key_ambiguous" if found else "token.key_not_found",
        f"the token's signing keys are: {present}"
        + (f"; none has CKA_ID {key_id.hex()}" if key_id and not found else ""),
        hint="name one of them with its id, or make one: privyseal key generate",
    )
