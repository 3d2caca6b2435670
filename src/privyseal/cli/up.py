# SPDX-License-Identifier: Apache-2.0
"""`privyseal up`."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.render import say

__all__ = ["up"]


def up(*, directory: Annotated[Path, Parameter(name="--dir")], listen: str = "") -> None:
    """Run hub and agent in this process with everything embedded, until SIGINT or SIGTERM.

    In an empty directory it first makes CA, hub, agent, a software token and the key profile `demo`. When it can sign
    it prints one JSON line.

    It proves nothing against the owner of this machine, who has token, PIN, hub and log in one place.

    Parameters
    ----------
    directory
        Where everything is kept.
    listen
        HOST:PORT for signing; joining, log and health get the next port. Only for a new directory; default: loopback,
        free ports.
    """
    from privyseal.cli.embedded import Installation, make_or_open  # noqa: PLC0415 - extras `hub` and `agent`
    from privyseal.cli.processes import configure_logging, stop_signal  # noqa: PLC0415

    async def serve() -> None:
        stop = stop_signal()
        installation: Installation = await make_or_open(directory, listen)
        try:
            await installation.ready()
            print(json.dumps(installation.announcement()), flush=True)  # noqa: T201 - the contract with scripts
            await installation.agent.wait(stop)
        finally:
            await installation.stop()

    configure_logging()
    say("everything runs on this machine: its owner has token, PIN and log, and nothing is proven against the owner")
    asyncio.run(serve())
