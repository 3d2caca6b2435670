# SPDX-License-Identifier: Apache-2.0
"""From arguments to an exit code."""

import os
import sys
from typing import Final

import cyclopts

from privyseal.cli.app import app
from privyseal.cli.render import emit_error
from privyseal.errors import ConfigError, PrivysealError

__all__ = ["run"]

_USAGE: Final = 2
_INTERRUPTED: Final = 130
_EXTRA_MODULES: Final = {"aiohttp": "hub,agent", "structlog": "hub,agent"}


def run(arguments: list[str]) -> int:
    """Parse, run, and turn what went wrong into words and a code."""
    as_json = "--json" in arguments
    try:
        result = app(
            arguments or ["--help"],
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except cyclopts.CycloptsError as error:
        emit_error(ConfigError("usage.arguments", str(error).strip(), hint="privyseal --help"), as_json=as_json)
        return _USAGE
    except PrivysealError as error:
        emit_error(error, as_json=as_json)
        return error.exit_status
    except ModuleNotFoundError as error:
        extra = _EXTRA_MODULES.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        missing = ConfigError(
            "install.extra",
            f"this command needs {error.name}, which the bare install does not bring",
            hint=f"pip install 'privyseal[{extra}]'",
        )
        emit_error(missing, as_json=as_json)
        return missing.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0
