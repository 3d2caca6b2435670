# SPDX-License-Identifier: Apache-2.0
"""`privyseal log prune`."""

import asyncio
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit
from privyseal.client.verifying import read_roots
from privyseal.errors import ConfigError

__all__ = ["prune"]


def prune(
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    years: float = 2.0,
    certificate: tuple[Path, ...] = (),
    reason: str = "",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> None:
    """Let entries go whose keys' certificates expired long ago: on the hub's machine, while the hub does not run.

    Their hashes stay, and so do the root, proofs and receipts; an entry of the log says what went. Export the log
    before, if the entries shall be kept elsewhere.

    Parameters
    ----------
    directory
        The hub's directory.
    years
        For how long entries are kept after their key's certificate has expired.
    certificate
        PEM file with certificates of keys that no agent announces any more. May be repeated.
    reason
        Why, for the log.
    dry_run
        Only say what would go.
    as_json
        Print one JSON document.
    """
    from privyseal.hub.pruning import Retention, prune_log  # noqa: PLC0415 - needs the extra `hub`

    if not 0 <= years <= 1000:
        raise ConfigError("usage.arguments", f"--years {years:g} is no time for which entries are kept")
    retention = Retention(years=years, certificates=read_roots(certificate), reason=reason)
    done = asyncio.run(prune_log(directory, retention, dry_run=dry_run))
    would = "would be pruned" if dry_run else "are pruned"
    emit(
        {
            "entries": done.entries,
            "bodies": done.bodies,
            "stop": done.stop,
            "index": done.index,
            "dry_run": dry_run,
        },
        (
            f"pruned    the first {done.entries} entries {would}: {done.bodies} bodies"
            if done.bodies
            else "pruned    nothing may go",
            f"          what stays first, {done.stop}",
        ),
        as_json=as_json,
    )
