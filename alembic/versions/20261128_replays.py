"""Replays: which stored rows a batch is made of, and what a replay is asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("etl_runs", sa.Column("scope", JSONB(), nullable=True))
    op.add_column("etl_batches", sa.Column("raw_ids", ARRAY(sa.BigInteger()), nullable=True))
    op.add_column("etl_batches", sa.Column("raw_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("etl_batches", sa.Column("raw_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("etl_batches", sa.Column("low", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("etl_batches", sa.Column("records_discarded", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("rejected_records", sa.Column("driven_by", UUID(as_uuid=True), nullable=True))
    op.add_column("rejected_records", sa.Column("earlier", JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("rejected_records", "earlier")
    op.drop_column("rejected_records", "driven_by")
    for name in ("records_discarded", "low", "raw_until", "raw_since", "raw_ids"):
        op.drop_column("etl_batches", name)
    op.drop_column("etl_runs", "scope")
