# SPDX-License-Identifier: Apache-2.0
"""Secrets that a person pastes: never from the arguments, which every process of the machine can read."""

import getpass
import sys
from typing import Final

from privyseal.errors import ConfigError

__all__ = ["read_join_code"]

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
