# SPDX-License-Identifier: Apache-2.0
"""SignTool's grammar: a command, flags with `/` or `-` in any case, values as arguments of their own, file names."""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from privyseal.cli.signtool.flags import COMMANDS, EXCLUSIONS, Flag
from privyseal.errors import ConfigError

__all__ = ["Arguments", "parse"]

_HELP: Final = frozenset(("?", "h", "help"))
#: A path from the root has another slash or a dot; what has neither is a flag, as it is for SignTool.
_FLAG: Final = re.compile(r"(?:/|--?)([A-Za-z0-9?]+)")
_ATTEMPT: Final = re.compile(r"(-+|/)([A-Za-z0-9]*)([:=].*|[^/]*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """A command line.

    Attributes:
        command: In lower case; empty if help was asked for without one.
        help: Whether help is asked for; then nothing else is said.
        given: Flags by name, each with the values of each time that it was given.
    """

    command: str
    help: bool = False
    given: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    files: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Whether a flag was given."""
        return name in self.given

    def value(self, name: str) -> str:
        """The value of a flag, or empty."""
        return self.given[name][0][0] if name in self.given else ""

    def values(self, name: str) -> tuple[str, ...]:
        """The value of each time that a flag was given."""
        return tuple(values[0] for values in self.given.get(name, ()))


def parse(arguments: Iterable[str]) -> Arguments:
    """Read a command line.

    Raises:
        ConfigError: `signtool.command`, `signtool.flag` for an unknown one, `signtool.refused` for one that is not
            honoured, `signtool.value`, `signtool.repeated`, `signtool.together`, `signtool.files`.
    """
    left = deque(arguments)
    if not left or _name(left[0]) in _HELP:
        return Arguments(command="", help=True)
    command = left.popleft().lower()
    if command not in COMMANDS:
        raise ConfigError(
            "signtool.command",
            f"{command} is not a command that is supported",
            hint="supported are " + ", ".join(COMMANDS),
        )
    given: dict[str, list[tuple[str, ...]]] = {}
    files: list[str] = []
    while left:
        argument = left.popleft()
        name = _name(argument)
        if name in _HELP:
            return Arguments(command=command, help=True)
        if name is None:
            files.append(argument)
            continue
        flag = _known(command, name)
        given.setdefault(name, []).append(_values(command, flag, left))
    _check(command, given, files)
    return Arguments(command=command, given={name: tuple(values) for name, values in given.items()}, files=tuple(files))


def _name(argument: str) -> str | None:
    """The name of a flag; None for a file name.

    Raises:
        ConfigError: `signtool.flag`.
    """
    plain = _FLAG.fullmatch(argument)
    if plain is not None:
        return plain[1].lower()
    attempt = _ATTEMPT.fullmatch(argument)
    if attempt is None or (attempt[1] == "/" and attempt[3][:1] not in {":", "="}):
        return None
    # What follows may be a password: it is not repeated.
    raise ConfigError(
        "signtool.flag",
        f"{attempt[1]}{attempt[2]} is not a flag in a form that is known: a value is an argument of its own",
        hint="for example /fd SHA256; a file whose name begins with - is written ./-name",
    )


def _known(command: str, name: str) -> Flag:
    flags = COMMANDS[command]
    if name not in flags:
        honoured = " ".join(f"/{one.name}" for one in flags.values() if not one.refused)
        raise ConfigError(
            "signtool.flag",
            f"signtool {command} has no flag /{name}",
            hint=f"supported are {honoured}; a file in the root folder is written /./{name}",
        )
    flag = flags[name]
    if flag.refused:
        raise ConfigError(
            "signtool.refused", f"/{name} is not supported: {flag.refused}", hint="docs/signtool.md lists every flag"
        )
    return flag


def _values(command: str, flag: Flag, left: deque[str]) -> tuple[str, ...]:
    found: list[str] = []
    for _ in range(flag.values):
        follows = _FLAG.fullmatch(left[0]) if left else None
        if not left or (follows is not None and follows[1].lower() in COMMANDS[command]):
            raise ConfigError(
                "signtool.value",
                f"/{flag.name} needs a value, and none follows it",
                hint=f"signtool {command} /? lists the flags",
            )
        found.append(left.popleft())
    return tuple(found)


def _check(command: str, given: Mapping[str, list[tuple[str, ...]]], files: list[str]) -> None:
    for name, values in given.items():
        if len(values) > 1 and not COMMANDS[command][name].repeats and COMMANDS[command][name].values:
            raise ConfigError(
                "signtool.repeated", f"/{name} is given {len(values)} times", hint="give it once; it is not clear which"
            )
    for name, others in EXCLUSIONS[command].items():
        together = [other for other in others if other in given and name in given]
        if together:
            raise ConfigError(
                "signtool.together",
                f"/{name} cannot be given together with " + ", ".join(f"/{other}" for other in together),
                hint="docs/signtool.md says what each of them does",
            )
    if not files or not all(files):
        raise ConfigError(
            "signtool.files", "no file is named, or one with an empty name", hint=f"signtool {command} [flags] FILE..."
        )
