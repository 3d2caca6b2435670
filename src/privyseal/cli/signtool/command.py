# SPDX-License-Identifier: Apache-2.0
"""From SignTool's arguments to its exit codes: 0 success, 1 failure, 2 success with warnings."""

import os
import sys
from collections.abc import Callable
from typing import Final

from privyseal.cli.render import emit
from privyseal.cli.signtool.arguments import Arguments, parse
from privyseal.cli.signtool.flags import COMMANDS
from privyseal.cli.signtool.talk import Talk
from privyseal.errors import ConfigError, PrivysealError

__all__ = ["run", "signtool"]

_FAILURE: Final = 1
_INTERRUPTED: Final = 130


def signtool(*given: str) -> int:
    """SignTool's command line: sign, verify, timestamp, remove; /? tells the flags."""
    return run(list(given))


def run(given: list[str]) -> int:
    """Run a command; every error becomes words and an exit code."""
    talk = Talk()
    try:
        arguments = parse(given)
        if arguments.help:
            emit({}, _help(arguments.command), as_json=False)
            return 0
        talk.listen_to(arguments)
        return _command(arguments.command)(arguments, talk)
    except PrivysealError as error:
        talk.error(error)
    except KeyboardInterrupt:
        talk.explain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = "" if error.filename is None else f" {os.fsdecode(error.filename)}"
        talk.error(ConfigError("file.unusable", f"cannot use{place}: {error.strerror or error}"))
    return _FAILURE


def _command(name: str) -> Callable[[Arguments, Talk], int]:
    """Each is imported when it runs: verifying needs nothing of the network."""
    if name == "sign":
        from privyseal.cli.signtool.signing import sign  # noqa: PLC0415

        return sign
    if name == "verify":
        from privyseal.cli.signtool.verifying import verify  # noqa: PLC0415

        return verify
    if name == "timestamp":
        from privyseal.cli.signtool.timestamping import timestamp  # noqa: PLC0415

        return timestamp
    from privyseal.cli.signtool.removing import remove  # noqa: PLC0415

    return remove


def _help(command: str) -> list[str]:
    if not command:
        return [
            "Usage: privyseal signtool <command> [flags] <file>...",
            "",
            f"Commands: {', '.join(COMMANDS)}. For the flags of one: privyseal signtool <command> /?",
            "docs/signtool.md says what each flag does.",
        ]
    flags = COMMANDS[command].values()
    honoured = [f"/{one.name}" + " <value>" * one.values for one in flags if not one.refused]
    refused = [f"/{one.name}" for one in flags if one.refused]
    lines = [f"Usage: privyseal signtool {command} [flags] <file>...", "", "Flags: " + ", ".join(honoured)]
    return [*lines, "Refused: " + ", ".join(refused)] if refused else lines
