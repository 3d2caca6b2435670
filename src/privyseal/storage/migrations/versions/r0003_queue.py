# SPDX-License-Identifier: Apache-2.0
"""The queue: classes of requests, leases of tokens, key profiles of several tokens.

Agents announce their key profiles again, with the tokens' names; leases are taken anew.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BYTES = sa.LargeBinary()
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _column(name: str, kind: sa.types.TypeEngine[Any], **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=options.pop("nullable", False), **options)


def _table(name: str, *columns: sa.Column[Any]) -> None:
    op.drop_table(name)
    op.create_table(name, *columns, sqlite_strict=True, sqlite_with_rowid=False)


def upgrade() -> None:
    """Requests that wait were queued when they were made, in the class of everything else."""
    op.add_column("request", _column("queued_ms", _INTEGER, server_default=sa.text("0")))
    op.add_column("request", _column("priority", _INTEGER, server_default=sa.text("1")))
    op.add_column("request", _column("wanted_key", _TEXT, server_default=sa.text("''")))
    op.add_column("request", _column("cancelled_ms", _INTEGER, nullable=True))
    op.execute("UPDATE request SET queued_ms = created_ms")
    op.add_column("job", _column("token", _TEXT, server_default=sa.text("''")))
    _table(
        "key_profile",
        _column("name", _TEXT, primary_key=True),
        _column("agent", _TEXT, primary_key=True),
        _column("token", _TEXT, primary_key=True),
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
        _column("token", _TEXT, primary_key=True),
        _column("holder", _TEXT),
        _column("fence", _INTEGER),
        _column("expires_ms", _INTEGER),
    )
