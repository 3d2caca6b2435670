# SPDX-License-Identifier: Apache-2.0
"""Naming a database in hub.toml, whose every other line stays as it is."""

import json
import re
import tomllib
from typing import Any, Final

from privyseal.errors import ConfigError

__all__ = ["with_database"]

_EMPTY: Final = re.compile(r"""(?m)^(\s*database\s*=\s*)(?:""|'')""")
_TABLE: Final = re.compile(r"(?m)^\s*\[")
_EXAMPLE: Final = re.compile(r"(?m)^#\s*database\s*=.*$")
_ENTRY: Final = re.compile(r"(?m)^\w+\s*=.*$")


def with_database(text: str, url: str) -> str:
    """The text of hub.toml with another database than the SQLite file.

    Args:
        text: That names none.
        url: As `check_database_url` accepts it.

    Raises:
        ConfigError: `config.malformed` if the line cannot be put in so that all else stays.
    """
    wanted = tomllib.loads(text) | {"database": url}
    # What JSON escapes, and how, TOML reads alike.
    line = f"database = {json.dumps(url, ensure_ascii=False)}"
    for changed in _candidates(text, line):
        if _parsed(changed) == wanted:
            return changed
    raise ConfigError(
        "config.malformed",
        "the line with the database cannot be put into hub.toml by itself",
        hint=f"write it before the first table: {line}",
    )


def _candidates(text: str, line: str) -> tuple[str, ...]:
    """In place of an empty one, behind the commented example, behind the last entry before the tables, on top."""
    newline = "\r\n" if "\r\n" in text else "\n"
    table = _TABLE.search(text)
    head = text if table is None else text[: table.start()]
    value = line.partition("= ")[2]
    found = [_EMPTY.sub(lambda match: match[1] + value, text, count=1)]
    for pattern in (_EXAMPLE, _ENTRY):
        for place in [match.end() for match in pattern.finditer(head)][-1:]:
            end = place - 1 if text[:place].endswith("\r") else place
            found.append(f"{text[:end]}{newline}{line}{text[end:]}")
    found.append(f"{line}{newline}{text}")
    return tuple(found)


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}
