# SPDX-License-Identifier: Apache-2.0
"""`privyseal witness`."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit, say

__all__ = ["init", "run", "show"]

Directory = Annotated[Path, Parameter(name="--dir")]


def init(
    *,
    directory: Directory,
    name: str,
    listen: str = "127.0.0.1:8450",
    keys: Literal["both", "ed25519", "ml-dsa-44"] = "both",
    as_json: AsJson = False,
) -> None:
    """Make a new witness: its keys, its configuration, and a memory in which nothing stands yet.

    Parameters
    ----------
    directory
        New directory for the witness; not on the hub's machine.
    name
        The witness's name, such as witness.example/w1; it cannot be changed later.
    listen
        HOST:PORT to bind.
    keys
        What it cosigns with; a policy may name either key. With both, each answer has two lines.
    as_json
        Print one JSON document.
    """
    from privyseal.hub.config import split_address  # noqa: PLC0415 - needs the extra `hub`
    from privyseal.witness.config import BOTH_KEYS, init_witness  # noqa: PLC0415

    split_address(listen)
    chosen = BOTH_KEYS if keys == "both" else (keys,)
    vkeys = [one.verifier.vkey for one in init_witness(directory, name=name, listen=listen, keys=chosen)]
    emit(
        {"directory": str(directory), "name": name, "keys": vkeys},
        (f"made witness {name} in {directory}", *(f"key  {vkey}" for vkey in vkeys)),
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
    """The witness's keys, the logs it knows, and what it cosigned last of each.

    Parameters
    ----------
    directory
        Where `witness init` made it.
    as_json
        Print one JSON document.
    """
    from privyseal.witness.config import load_cosigners, load_witness_config  # noqa: PLC0415 - needs the extra `hub`
    from privyseal.witness.memory import read_memory  # noqa: PLC0415

    config = load_witness_config(directory)
    cosigners = load_cosigners(directory, config)
    seen = read_memory(config.place(directory, cosigners))
    logs = {
        origin: {"size": seen[origin].size, "root": seen[origin].root.hex()} if origin in seen else None
        for origin in sorted({*config.log_keys, *seen})
    }
    emit(
        {"name": config.name, "keys": [one.verifier.vkey for one in cosigners], "logs": logs},
        (
            f"witness {config.name}",
            *(f"key     {one.verifier.vkey}" for one in cosigners),
            *(
                f"log     {origin}: " + (f"size {last['size']}, root {last['root']}" if last else "nothing cosigned")
                for origin, last in logs.items()
            ),
        ),
        as_json=as_json,
    )
