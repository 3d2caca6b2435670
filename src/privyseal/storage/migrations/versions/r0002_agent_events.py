# SPDX-License-Identifier: Apache-2.0
"""How far the events that agents tell of stand in the log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table; no agent has told of anything yet."""
    op.create_table(
        "agent_event",
        sa.Column("request_key", sa.LargeBinary(), primary_key=True, nullable=False),
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
