"""Processes tell which protocol they have; stages are checked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("etl_workers", sa.Column("protocol", sa.Integer(), nullable=True))
    op.execute("ALTER TABLE etl_runs VALIDATE CONSTRAINT ck_etl_runs_stage")


def downgrade() -> None:
    op.drop_column("etl_workers", "protocol")
