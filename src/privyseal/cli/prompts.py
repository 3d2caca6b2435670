# SPDX-License-Identifier: Apache-2.0
"""What a person is asked: secrets, never taken from the arguments, which every process can read; and yes or no."""

import getpass
import sys
from typing import Final

from privyseal.errors import ConfigError

__all__ = ["confirm", "has_terminal", "read_join_code", "read_new_pin", "read_pin"]

_MAX_CHARACTERS: Final = 4096


def read_join_code() -> str:
    """The join code: asked for on a terminal, else the first line of standard input.

    Raises:
        ConfigError: `join.code` if there is none.
    """
    if sys.stdin is None:
        text = ""
    elif sys.stdin.isatty():
        text = getpass.getpass("Join code: ")
    else:
        text = sys.stdin.readline(_MAX_CHARACTERS)
    if not text.strip():
        raise ConfigError(
            "join.code",
            "no join code came on standard input",
            hint="run the command on a terminal and paste it, or: privyseal … join < FILE",
        )
    return text.strip()


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def read_new_pin(token: str) -> bytearray:
    """A new PIN for a token, typed twice on a terminal; to be overwritten by the caller.

    Raises:
        ConfigError: `pin.no_terminal`, `pin.empty`; `pin.differs` if it was not the same twice.
    """
    first = read_pin(f"{token}, the NEW one", option="--new-pin-file")
    second = read_pin(f"{token}, the NEW one once more", option="--new-pin-file")
    is_same = first == second
    second[:] = bytes(len(second))
    if not is_same:
        first[:] = bytes(len(first))
        raise ConfigError("pin.differs", "the new PIN was not the same twice; nothing was presented to the token")
    return first


def read_pin(token: str, *, option: str = "--pin-file") -> bytearray:
    """A token's PIN, asked for on a terminal; to be overwritten by the caller.

    Args:
        token: Its name.
        option: By which the command takes a file instead.

    Raises:
        ConfigError: `pin.no_terminal`, `pin.empty`.
    """
    if not has_terminal():
        raise ConfigError(
            "pin.no_terminal",
            f"token {token!r} needs its PIN, and there is no terminal to ask for it",
            hint=f"write the PIN into a file of mode 0600 and name it with {option}"
            if option
            else "run the command on a terminal",
        )
    pin = getpass.getpass(f"PIN of token {token}: ")
    if not pin:
        raise ConfigError("pin.empty", "no PIN was typed; nothing was presented to the token")
    return bytearray(pin.encode())


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if a person says so.

    Args:
        question: What would be done.
        yes: Whether the arguments said so already.

    Raises:
        ConfigError: `usage.confirm` if nobody can be asked; `usage.declined`.
    """
    if yes:
        return
    if not has_terminal():
        raise ConfigError(
            "usage.confirm", f"{question} Nobody can be asked, so nothing was done.", hint="look at it, then add --yes"
        )
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    if sys.stdin.readline(_MAX_CHARACTERS).strip().lower() not in ("y", "yes"):
        raise ConfigError("usage.declined", "nothing was changed")
