# SPDX-License-Identifier: Apache-2.0
"""`privyseal witness`."""

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit, say

__all__ = ["init", "run", "show"]

Directory = Annotated[Path, Parameter(name="--dir")]


def init(*, directory: Directory, name: str, listen: str = "127.0.0.1:8450", as_json: AsJson = False) -> None:
    """Make a new witness: its key, its configuration, and a memory in which nothing stands yet.

    Parameters
    ----------
    directory
        New directory for the witness; not on the hub's machine.
    name
        The witness's name, such as witness.example/w1; it cannot be changed later.
    listen
        HOST:PORT to bind.
    as_json
        Print one JSON document.
    """
    from privyseal.hub.config import split_address  # noqa: PLC0415 - needs the extra `hub`
    from privyseal.witness.config import init_witness  # noqa: PLC0415

    split_address(listen)
    key = init_witness(directory, name=name, listen=listen).verifier
    emit(
        {"directory": str(directory), "name": name, "key": key.vkey},
        (f"made witness {name} in {directory}", f"key  {key.vkey}"),
        as_json=as_json,
    )
    if not as_json:
        say(f"next: name the logs in {directory / 'witness.toml'}, then: privyseal witness run --dir {directory}")


def run(*, directory: Directory, listen: str = "") -> None:
    """Run the witness in the foreground until SIGINT or SIGTERM.

    Parameters
    ----------
    directory
        Where `witness init` made it.
    listen
        HOST:PORT to bind (default: what witness.toml says).
    """
    from privyseal.cli.processes import configure_logging, stop_signal  # noqa: PLC0415 - needs the extra `hub`
    from privyseal.hub.config import split_address  # noqa: PLC0415
    from privyseal.witness.config import load_witness_config  # noqa: PLC0415
    from privyseal.witness.service import WitnessProcess, open_witness  # noqa: PLC0415

    host, port = split_address(listen or load_witness_config(directory).listen)

    async def serve() -> None:
        stop = stop_signal()
        process = WitnessProcess(open_witness(directory), host=host, port=port)
        try:
            await process.start()
            await stop.wait()
        finally:
            await process.stop()

    configure_logging()
    asyncio.run(serve())


def show(*, directory: Directory, as_json: AsJson = False) -> None:
    """The witness's key, the logs it knows, and what it cosigned last of each.

    Parameters
    ----------
    directory
        Where `witness init` made it.
    as_json
        Print one JSON document.
    """
    from privyseal.witness.config import load_cosigner, load_witness_config  # noqa: PLC0415 - needs the extra `hub`
    from privyseal.witness.memory import read_memory  # noqa: PLC0415

    config = load_witness_config(directory)
    key = load_cosigner(directory, config)
    seen = read_memory(config.place(directory, key))
    logs = {
        origin: {"size": seen[origin].size, "root": seen[origin].root.hex()} if origin in seen else None
        for origin in sorted({*config.keys, *seen})
    }
    emit(
        {"name": config.name, "key": key.verifier.vkey, "logs": logs},
        (
            f"witness {config.name}",
            f"key     {key.verifier.vkey}",
            *(
                f"log     {origin}: " + (f"size {last['size']}, root {last['root']}" if last else "nothing cosigned")
                for origin, last in logs.items()
            ),
        ),
        as_json=as_json,
    )
