# SPDX-License-Identifier: Apache-2.0
"""`privyseal hub migrate`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from privyseal.cli.authority import AsJson
from privyseal.cli.render import emit

__all__ = ["migrate"]


def migrate(
    *,
    directory: Annotated[Path, Parameter(name="--dir")],
    check: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> int:
    """Upgrade the hub's database for this release. On the hub's machine, stopped.

    A hub over SQLite upgrades its database by itself when it starts. Over PostgreSQL it refuses an older database, as
    other hubs may use it: stop them all, make a backup, and upgrade it by this command.

    Parameters
    ----------
    directory
        The hub's directory.
    check
        Only say whether an upgrade is needed; exit code 1 if it is.
    as_json
        Print one JSON document.
    """
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
