# SPDX-License-Identifier: Apache-2.0
"""From arguments to an exit code."""

import os
import re
import sys
from typing import Final

import cyclopts

from privyseal.cli.app import app
from privyseal.cli.render import emit_error
from privyseal.errors import ConfigError, PrivysealError

__all__ = ["run"]

_INTERRUPTED: Final = 130
_JOIN_CODE: Final = re.compile(r"pvjoin1-[\w-]+")
_EXTRA_MODULES: Final = {"aiohttp": "hub,agent", "structlog": "hub,agent", "prometheus_client": "hub,agent"}


def run(arguments: list[str]) -> int:
    """Parse, run, and turn what went wrong into words and a code."""
    failure: PrivysealError
    try:
        result = app(
            arguments or ["--help"],
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except cyclopts.CycloptsError as error:
        # A join code that was given here by mistake must not get into the build's log as well.
        reason = _JOIN_CODE.sub("JOIN-CODE", _usage(error))
        command = " ".join(("privyseal", *(error.command_chain or ())))
        failure = ConfigError("usage.arguments", reason, hint=f"{command} --help")
    except PrivysealError as error:
        failure = error
    except ModuleNotFoundError as error:
        failure = _missing_extra(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more while flushing at exit. What was left to be
        # signed or verified was not: that is no success.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _INTERRUPTED
    except OSError as error:
        place = "a file, or write the output" if error.filename is None else os.fsdecode(error.filename)
        failure = ConfigError("file.unusable", f"cannot use {place}: {error.strerror or error}")
    else:
        return result if isinstance(result, int) else 0
    try:
        emit_error(failure, as_json="--json" in arguments)
    except OSError:  # standard output takes nothing, and that may be what failed
        emit_error(failure, as_json=False)
    return failure.exit_status


def _usage(error: cyclopts.CycloptsError) -> str:
    if isinstance(error, cyclopts.UnusedCliTokensError) and error.unused_tokens:
        return f"the command takes no further argument, but was given: {' '.join(error.unused_tokens)}"
    return str(error).strip()


def _missing_extra(error: ModuleNotFoundError) -> ConfigError:
    """What to install; an import that fails for another reason is a defect, and stays one."""
    extra = _EXTRA_MODULES.get((error.name or "").partition(".")[0])
    if extra is None:
        raise error
    return ConfigError(
        "install.extra",
        f"this command needs {error.name}, which the bare install does not bring",
        hint=f"pip install 'privyseal[{extra}]'",
    )
