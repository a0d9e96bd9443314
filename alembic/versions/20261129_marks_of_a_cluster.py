"""Marks of mirrors, and the floor below them, belong to a cluster: its transactions are numbered by it alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

TABLES = ("mirror_marks", "mirror_floor")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("cluster", sa.Text(), nullable=True))
        op.execute(f"UPDATE {table} SET cluster = (SELECT system_identifier::text FROM pg_control_system())")


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "cluster")
