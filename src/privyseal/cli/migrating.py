# SPDX-License-Identifier: Apache-2.0
"""`privyseal hub migrate`."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit, say
from privyseal.errors import ConfigError

if TYPE_CHECKING:
    from privyseal.hub.moving import Moved

__all__ = ["migrate"]


def migrate(
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    to: str = "",
    check: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> int:
    """Upgrade the hub's database for this release, or move it to PostgreSQL. On the hub's machine, stopped.

    A hub over SQLite upgrades its database by itself when it starts. Over PostgreSQL it refuses an older database, as
    other hubs may use it: stop them all, make a backup, and upgrade it by this command.

    With --to, everything is copied into an empty PostgreSQL database and verified there; then hub.toml names it, and
    hub.db is put aside under another name. Whatever ends that early, run the same command again.

    Parameters
    ----------
    directory
        The hub's directory.
    to
        URL of an empty PostgreSQL database, without a password.
    check
        Only say whether an upgrade is needed; exit code 1 if it is.
    dry_run
        With --to: only look at both databases, and say what would be moved.
    as_json
        Print one JSON document.
    """
    if to and check:
        raise ConfigError(
            "usage.arguments", "--check and --to exclude each other", hint="--dry-run looks before a move"
        )
    if to:
        return _move(directory, to, dry_run=dry_run, as_json=as_json)
    if dry_run:
        raise ConfigError("usage.arguments", "--dry-run goes with --to", hint="--check looks before an upgrade")
    return _upgrade(directory, check=check, as_json=as_json)


def _upgrade(directory: Path, *, check: bool, as_json: bool) -> int:
    from privyseal.hub.migrating import migrate_hub, pending_change  # noqa: PLC0415 - needs the extra `hub`

    change = pending_change(directory) if check else migrate_hub(directory)
    before = "nothing" if change.before is None else f"revision {change.before}"
    if not change.changed:
        line = f"{change.place} has revision {change.after}, as this release reads it"
    elif check:
        line = f"{change.place} is to be migrated from {before} to revision {change.after}"
    else:
        line = f"migrated {change.place} from {before} to revision {change.after}"
    emit(
        {
            "database": change.place,
            "before": change.before,
            "after": change.after,
            "changed": change.changed and not check,
            "pending": change.changed and check,
        },
        (line,),
        as_json=as_json,
    )
    return 1 if check and change.changed else 0


def _move(directory: Path, url: str, *, dry_run: bool, as_json: bool) -> int:
    from privyseal.hub.moving import move_hub  # noqa: PLC0415 - needs the extra `hub`

    done = asyncio.run(move_hub(directory, url, dry_run=dry_run, told=lambda stage: say(f"so far: {stage}")))
    rows = sum(count for _, count in done.tables)
    emit(
        {
            "database": done.place,
            "tables": dict(done.tables),
            "rows": rows,
            "entries": done.entries,
            "index": done.index,
            "aside": None if done.aside is None else str(done.aside),
            "seconds": round(done.seconds, 3),
            "dry_run": dry_run,
        },
        _lines(done, rows, dry_run=dry_run),
        as_json=as_json,
    )
    return 0


def _lines(done: "Moved", rows: int, *, dry_run: bool) -> Iterator[str]:
    copied = f"{len(done.tables)} tables, {rows} rows, a log of {done.entries} entries"
    if not done.tables:
        copied = f"a log of {done.entries} entries, which an earlier run has copied"
    if dry_run:
        yield f"would move  {copied}"
        yield f"to          {done.place}"
        return
    yield f"moved     {copied}, in {done.seconds:.1f} s"
    yield f"to        {done.place}, which hub.toml names from now on"
    yield f"on record entry {done.index}"
    yield f"aside     {done.aside} (keep it until a backup has the new database)"
