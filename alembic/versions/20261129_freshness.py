"""Freshness and volume: which sources are late, and which runs met too few records or too many."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("sources", sa.Column("late_after", sa.Double(), nullable=True))
    op.add_column("sources", sa.Column("late_since", TIME, nullable=True))
    op.add_column("etl_checkpoints", sa.Column("last_read_at", TIME, nullable=True))
    op.add_column("etl_checkpoints", sa.Column("sizes", ARRAY(sa.BigInteger()), nullable=True))
    op.add_column("etl_checkpoints", sa.Column("size_flag", sa.Text(), nullable=True))
    op.execute("""
        UPDATE etl_checkpoints
        SET last_read_at = greatest(last_success_at, CASE WHEN last_status = 'partial' THEN last_run_at END)
    """)


def downgrade() -> None:
    for name in ("size_flag", "sizes", "last_read_at"):
        op.drop_column("etl_checkpoints", name)
    for name in ("late_since", "late_after"):
        op.drop_column("sources", name)
