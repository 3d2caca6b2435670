# SPDX-License-Identifier: Apache-2.0
"""Entry point of `privyseal`, and the process boundary: every error becomes a message and an exit code.

`--version` and the fronts answer before anything heavy is imported.
"""

import signal
import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command and answer with its exit code (DESIGN §10)."""
    given = sys.argv[1:] if arguments is None else arguments
    if given in (["--version"], ["-V"]):
        from privyseal import __version__  # noqa: PLC0415 - nothing else is needed

        print(f"privyseal {__version__}")  # noqa: T201 - the command's output
        return 0
    # A build that is cancelled ends like one that is interrupted by hand: files whole, nothing left beside them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if given[:1] == ["signtool"]:
        from privyseal.cli.signtool.command import run as run_signtool  # noqa: PLC0415 - a front: no command tree

        return run_signtool(given[1:])
    from privyseal.cli.boundary import run  # noqa: PLC0415 - imports the command tree

    return run(given)


if __name__ == "__main__":
    sys.exit(main())
