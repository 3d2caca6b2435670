# SPDX-License-Identifier: Apache-2.0
"""Authority statements that were carried out, so that none is carried out twice."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table; what was handed in before it left its mark elsewhere."""
    op.create_table(
        "authority_statement",
        sa.Column("sha256", sa.LargeBinary(), primary_key=True, nullable=False),
        sa.Column("not_after_ms", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
