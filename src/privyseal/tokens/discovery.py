# SPDX-License-Identifier: Apache-2.0
"""What this machine's PKCS#11 modules show: each is looked at in a worker process of its own, with a deadline.

Nothing here logs in. A module that hangs or crashes is one entry with its reason.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privyseal.errors import TokenError
from privyseal.tokens import frames
from privyseal.tokens.architecture import HEADER_BYTES, architectures
from privyseal.tokens.contents import ModuleContents
from privyseal.tokens.places import FoundModule, variable_of
from privyseal.tokens.process import WorkerProcess

__all__ = ["LookedAt", "look_at", "module_environment"]

_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAt:
    """A module, and what came of looking at it.

    Attributes:
        machines: What the file was built for; empty if it could not be read as a library.
        contents: None if there is a problem.
    """

    module: FoundModule
    machines: tuple[str, ...]
    environment: Mapping[str, str]
    contents: ModuleContents | None = None
    problem: TokenError | None = None


def module_environment(module: str) -> dict[str, str]:
    """What of this process's environment the module needs: where its configuration is."""
    name = variable_of(module)
    return {name: os.environ[name]} if name and name in os.environ else {}


async def look_at(
    module: FoundModule, *, environment: Mapping[str, str] | None = None, seconds: float = _SECONDS
) -> LookedAt:
    """Look at one module. Never raises for what the module is or does.

    Args:
        module: Which file.
        environment: What it needs of the environment; by default `module_environment`.
        seconds: Deadline for all of it.
    """
    variables = module_environment(str(module.path)) if environment is None else environment
    built_for: tuple[str, ...] = ()
    try:
        built_for = _read_machines(module.path)
        _check_machine(module.path, built_for)
        contents = await _scan(str(module.path), variables, seconds)
    except TokenError as error:
        return LookedAt(module=module, machines=built_for, environment=variables, problem=error)
    return LookedAt(module=module, machines=built_for, environment=variables, contents=contents)


async def _scan(module: str, environment: Mapping[str, str], seconds: float) -> ModuleContents:
    worker = await WorkerProcess.spawn(module, environment)
    try:
        answer = await worker.ask(frames.ScanCall(module=module), call_seconds=seconds, sign_seconds=seconds)
    finally:
        await worker.kill()
    if not isinstance(answer, frames.ScanAnswer):
        raise TokenError("token.protocol", f"{module}: the worker answered something else")
    return answer.contents


def _read_machines(path: Path) -> tuple[str, ...]:
    """What the file was built for.

    Raises:
        TokenError: `token.module`.
    """
    try:
        # A pipe or device of that name would keep an open waiting.
        head = _head(path) if path.is_file() else None
    except OSError as error:
        raise TokenError("token.module", f"{path} cannot be read: {error.strerror}") from error
    if head is None:
        raise TokenError(
            "token.module",
            f"there is no file {path}",
            hint="install the vendor's PKCS#11 library, or name it with --module",
        )
    built_for = architectures(head)
    if not built_for:
        raise TokenError(
            "token.module",
            f"{path} is no shared library",
            hint="name the vendor's PKCS#11 library itself",
        )
    return built_for


def _check_machine(path: Path, built_for: tuple[str, ...]) -> None:
    """Refuse what this process cannot load.

    Raises:
        TokenError: `token.module_architecture`.
    """
    own = architectures(_head(Path(sys.executable)))
    if own and not set(built_for) & set(own):
        raise TokenError(
            "token.module_architecture",
            f"{path} is built for {', '.join(built_for)}, this Python for {', '.join(own)}",
            hint="install the vendor's library for this processor; on a Raspberry Pi many vendors have none",
        )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEADER_BYTES)
