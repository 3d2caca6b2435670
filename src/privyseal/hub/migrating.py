# SPDX-License-Identifier: Apache-2.0
"""`hub migrate`: bringing the tables of a hub's database to the revision that this release reads."""

from dataclasses import dataclass
from pathlib import Path

from privyseal.hub.config import HubFiles, load_hub_config
from privyseal.hub.idle_database import idle_database
from privyseal.storage.postgres_url import database_place
from privyseal.storage.schema import REVISION, upgrade_statements

__all__ = ["SchemaChange", "migrate_hub", "pending_change"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaChange:
    """What was done, or is to be done.

    Attributes:
        place: The database, for people.
        before: The revision that was found; None if the database was empty.
        after: The revision that this release reads.
    """

    place: str
    before: str | None
    after: str

    @property
    def changed(self) -> bool:
        """Whether there was, or is, anything to do."""
        return self.before != self.after


def pending_change(directory: Path) -> SchemaChange:
    """What `migrate_hub` would do; also while hubs run.

    Raises:
        ConfigError: what is missing or malformed; `store.foreign`, `store.schema`.
        UnavailableError: `store.unavailable`.
    """
    files, config = HubFiles(directory), load_hub_config(directory)
    before = idle_database(files, config).revision()
    if before != REVISION:
        upgrade_statements("postgresql" if config.database else "sqlite", before)
    place = database_place(config.database) if config.database else str(files.database)
    return SchemaChange(place=place, before=before, after=REVISION)


def migrate_hub(directory: Path) -> SchemaChange:
    """Upgrade the tables of the hub in a directory, or make them; no hub may use the database.

    Raises:
        ConfigError: `store.in_use`. And as `pending_change`.
        UnavailableError: `store.unavailable`; nothing was changed then.
    """
    change = pending_change(directory)
    if not change.changed:
        return change
    database = idle_database(HubFiles(directory), load_hub_config(directory))
    database.ensure_unused()
    return SchemaChange(place=change.place, before=database.upgrade(), after=REVISION)
