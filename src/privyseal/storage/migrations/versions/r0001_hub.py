# SPDX-License-Identifier: Apache-2.0
"""Log, queue and enrolments of a hub.

Lists of names are JSON text, lists of certificates JSON of base64. Times are milliseconds since the epoch.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from privyseal.storage.schema import APPLICATION_ID

revision = "0001"
down_revision = None

#: SQLite's strict tables know INTEGER alone, which holds 64 bits there.
_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BYTES = sa.LargeBinary()
#: Ordered by bytes on both databases, whatever the locale.
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
#: Word for word the condition in the queries.
_WAITING = sa.text("state IN ('queued', 'intent')")


def _column(name: str, kind: sa.types.TypeEngine[Any], *rest: Any, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, *rest, nullable=options.pop("nullable", False), **options)


def _of(table: str, column: str) -> sa.ForeignKey:
    return sa.ForeignKey(f"{table}.{column}")


def _table(name: str, *parts: Any, rowid: bool = False) -> None:
    op.create_table(name, *parts, sqlite_strict=True, sqlite_with_rowid=rowid)


def _log() -> None:
    _table(
        "log_head",
        _column("id", _INTEGER, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        _column("origin", _TEXT),
        _column("size", _INTEGER),
        _column("root", _BYTES),
        _column("note", _TEXT),
        rowid=True,
    )
    # The leaf hash stands before the body: a tile is read without the overflow pages of its entries.
    _table(
        "log_entry",
        _column("entry_index", _INTEGER, primary_key=True, autoincrement=False),
        _column("leaf_hash", _BYTES),
        _column("body", _BYTES),
        rowid=True,
    )
    # Tile levels 1 and up (C2SP tlog-tiles); level 0 stands in log_entry.
    _table(
        "log_node",
        _column("level", _INTEGER, primary_key=True, autoincrement=False),
        _column("hash_index", _INTEGER, primary_key=True, autoincrement=False),
        _column("hash", _BYTES),
    )


def _checkpoints() -> None:
    _table(
        "log_checkpoint",
        _column("number", _INTEGER, primary_key=True, autoincrement=False),
        _column("size", _INTEGER, unique=True),
        _column("root", _BYTES),
        _column("note", _TEXT),
        _column("created_ms", _INTEGER),
        rowid=True,
    )
    # The same as witnesses cosigned them: only those that a key profile had to wait for.
    _table(
        "log_cosigned",
        _column("size", _INTEGER, primary_key=True, autoincrement=False),
        _column("note", _TEXT),
        rowid=True,
    )


def _members() -> None:
    _table(
        "join_code",
        _column("secret_sha256", _BYTES, primary_key=True),
        _column("role", _TEXT),
        _column("name", _TEXT),
        _column("profiles", _TEXT),
        _column("expires_ms", _INTEGER),
        _column("statement_sha256", _BYTES),
        _column("taken", _INTEGER, server_default=sa.text("0")),
    )
    _table(
        "enrolment",
        _column("role", _TEXT, primary_key=True),
        _column("name", _TEXT, primary_key=True),
        _column("certificate_sha256", _BYTES, unique=True),
        _column("request_key", _BYTES),
        _column("profiles", _TEXT),
        _column("salt", _BYTES),
        _column("entry_index", _INTEGER),
        _column("revoked_ms", _INTEGER, nullable=True),
    )
    _table(
        "key_grant",
        _column("request_key", _BYTES, primary_key=True),
        _column("profile", _TEXT, primary_key=True),
        _column("envelope", _BYTES),
        _column("entry_index", _INTEGER),
    )


def _profiles() -> None:
    _table(
        "key_profile",
        _column("name", _TEXT, primary_key=True),
        _column("agent", _TEXT),
        _column("chain", _TEXT),
        _column("level", _TEXT),
        _column("opaque", _TEXT),
        _column("token_label", _TEXT),
        _column("token_serial", _TEXT),
        _column("hardware", _INTEGER),
        _column("entry_index", _INTEGER),
        _column("witness", _TEXT),
        _column("test", _INTEGER),
    )
    _table(
        "lease",
        _column("profile", _TEXT, primary_key=True),
        _column("holder", _TEXT),
        _column("fence", _INTEGER),
    )


def _requests() -> None:
    _table(
        "request",
        _column("id", _TEXT, primary_key=True),
        _column("client", _TEXT),
        _column("idempotency_key", _TEXT),
        _column("profile", _TEXT),
        _column("envelope", _BYTES),
        _column("created_ms", _INTEGER),
        _column("not_after_ms", _INTEGER),
        sa.UniqueConstraint("client", "idempotency_key"),
        rowid=True,
    )


def _jobs() -> None:
    _table(
        "job",
        _column("seq", _INTEGER, primary_key=True, autoincrement=False),
        _column("request_id", _TEXT, _of("request", "id")),
        _column("item", _INTEGER),
        _column("profile", _TEXT),
        _column("state", _TEXT, sa.CheckConstraint("state IN ('queued', 'intent', 'signed', 'failed')")),
        _column("fence", _INTEGER),
        _column("attempts", _INTEGER),
        _column("intent_index", _INTEGER, nullable=True),
        _column("result_index", _INTEGER, nullable=True),
        _column("signature", _BYTES),
        _column("branch", _TEXT),
        _column("code", _TEXT),
        _column("message", _TEXT),
        sa.UniqueConstraint("request_id", "item"),
        rowid=True,
    )
    # What waits or runs is small beside what was ever signed.
    op.create_index("job_waiting", "job", ["profile", "seq"], sqlite_where=_WAITING, postgresql_where=_WAITING)
    # Whether a request has anything left to wait for, however many items it had.
    op.create_index("job_open", "job", ["request_id", "seq"], sqlite_where=_WAITING, postgresql_where=_WAITING)
    # Apart from job: up to 1 MiB that need not be written again with each change of state.
    _table(
        "job_preimage",
        _column("seq", _INTEGER, _of("job", "seq"), primary_key=True, autoincrement=False),
        _column("signed", _BYTES),
        _column("detail", _BYTES),
        rowid=True,
    )


def upgrade() -> None:
    """Make the tables in an empty database."""
    _log()
    _checkpoints()
    _members()
    _profiles()
    _requests()
    _jobs()
    if op.get_context().dialect.name == "sqlite":
        op.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
