# SPDX-License-Identifier: Apache-2.0
"""The tables of a hub's database, by revision: which one is found, and what brings it to the newest (alembic).

The revisions stand in `migrations/versions/`. They are compiled to statements of the database's dialect, which then
run in the transaction of whoever opens the database: alembic itself never connects to anything, and is imported only
where there is something to change.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from privyseal.errors import ConfigError
from privyseal.storage.calls import Query

__all__ = [
    "APPLICATION_ID",
    "COPY_TABLE",
    "REVISION",
    "Dialect",
    "check_revision",
    "found_revision",
    "prepare_hub",
    "table_names",
    "upgrade_hub",
    "upgrade_statements",
]

Dialect = Literal["sqlite", "postgresql"]

#: The newest revision: the one that this release reads.
REVISION: Final = "0004"

#: SQLite: written into the file's header (PRAGMA application_id), so that another database is not taken for ours.
APPLICATION_ID: Final = 0x50537948

#: PostgreSQL: stands beside tables that were copied there and that no hub has opened yet; it names them.
COPY_TABLE: Final = "privyseal_copy"

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
#: Not alembic's usual name, which many databases have.
_VERSION_TABLE: Final = "privyseal_schema"
_FOUND: Final = f"SELECT version_num FROM {_VERSION_TABLE}"  # noqa: S608 - a constant
_TABLES: Final[dict[Dialect, str]] = {
    "sqlite": "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
    "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()",
}


async def table_names(dialect: Dialect) -> frozenset[str]:
    """The tables that a database has."""
    return frozenset([str(name) for (name,) in await Query(_TABLES[dialect])])


async def found_revision(dialect: Dialect) -> str | None:
    """The revision that a database has; None if it is empty.

    Raises:
        ConfigError: `store.foreign` for tables that are not a hub's.
    """
    tables = await table_names(dialect)
    if dialect == "sqlite":
        ((application_id,),) = await Query("PRAGMA application_id")
        if application_id != (APPLICATION_ID if tables else 0):
            raise _foreign()
    if not tables:
        return None
    revisions = [str(revision) for (revision,) in await Query(_FOUND)] if _VERSION_TABLE in tables else []
    if len(revisions) != 1:
        raise _foreign()
    return revisions[0]


async def prepare_hub(dialect: Dialect) -> None:
    """Make the tables in an empty database, or see that they are of the newest revision, before a hub uses it.

    Inside a transaction that excludes others. A SQLite database is one hub's own, and is upgraded here. On PostgreSQL
    other hubs may be at work, perhaps of an older release: an operator stops them, and says when (`hub migrate`).

    Raises:
        ConfigError: `store.foreign` for tables that are not a hub's, `store.schema` for a revision of a newer release,
            `store.old_schema` for one of an older release.
    """
    revision = await found_revision(dialect)
    if dialect == "postgresql":
        if revision is not None:
            check_revision(dialect, revision)
        await Query(f"DROP TABLE IF EXISTS {COPY_TABLE}")  # from now on what was copied is in use
    await _upgrade(dialect, revision)


async def upgrade_hub(dialect: Dialect) -> str | None:
    """Bring an empty or older database to the newest revision; the one that it had. In a transaction as above.

    Raises:
        ConfigError: `store.foreign`, `store.schema`.
    """
    revision = await found_revision(dialect)
    await _upgrade(dialect, revision)
    return revision


async def _upgrade(dialect: Dialect, revision: str | None) -> None:
    if revision != REVISION:
        for statement in upgrade_statements(dialect, revision):
            await Query(statement)


def check_revision(dialect: Dialect, revision: str) -> None:
    """Refuse every revision but the newest.

    Raises:
        ConfigError: `store.schema` if this release does not know it, `store.old_schema` if it is older.
    """
    if revision == REVISION:
        return
    upgrade_statements(dialect, revision)
    raise ConfigError(
        "store.old_schema",
        f"the hub database has schema revision {revision!r}; this release reads {REVISION}",
        hint="stop every hub that uses it, make a backup, then privyseal hub migrate --dir DIR",
    )


def upgrade_statements(dialect: Dialect, revision: str | None) -> Iterator[str]:
    """The statements that lead from a revision, or from nothing, to the newest.

    Raises:
        ConfigError: `store.schema` if this release does not know the revision.
    """
    # Imported here: 0.2 s that only a new database, or one of an older release, costs.
    from alembic.operations import Operations  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    revisions = ScriptDirectory(str(_MIGRATIONS))
    if revision is not None and revision not in {known.revision for known in revisions.walk_revisions()}:
        raise ConfigError(
            "store.schema",
            f"the hub database has schema revision {revision!r}; this release reads {REVISION}",
            hint="use the release that wrote it, or a newer one",
        )
    written = _Written()
    context = MigrationContext.configure(
        dialect_name=dialect,
        opts={
            "as_sql": True,
            "output_buffer": written,
            "starting_rev": revision,
            "version_table": _VERSION_TABLE,
            "fn": lambda found, _context: revisions._upgrade_revs(REVISION, found),  # noqa: SLF001 - as alembic.command
        },
    )
    with Operations.context(context):
        context.run_migrations()
    return iter(written.statements)


class _Written:
    """Takes what alembic writes: one statement, or one comment, a time."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def write(self, text: str) -> None:
        """Keep a statement."""
        statement = text.strip().removesuffix(";")
        if statement and not statement.startswith("--"):
            self.statements.append(statement)

    def flush(self) -> None:
        """Nothing is held back."""


def _foreign() -> ConfigError:
    return ConfigError("store.foreign", "the database exists and is not a hub database")
