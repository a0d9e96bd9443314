"""Requests of runs, earlier records of items, and records that are erased."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, UUID

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "etl_requests",
        sa.Column("request_id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", UUID(as_uuid=True), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["etl_runs.run_id"], name=op.f("fk_etl_requests_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_etl_requests")),
    )
    op.create_index("ix_etl_requests_run", "etl_requests", ["run_id", "request_id"])
    op.create_table(
        "erasures",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("item_id", sa.BigInteger(), nullable=False),
        sa.Column("source_name", sa.Text(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_at", TIME, server_default=NOW, nullable=False),
        sa.Column("emptied_at", TIME, nullable=True),
        sa.Column("after", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("raw_ids", ARRAY(sa.BigInteger()), nullable=True),
        sa.Column("records", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("settled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("waits", sa.Double(), server_default="0", nullable=False),
        sa.Column("looked_at", TIME, server_default="-infinity", nullable=False),
        sa.Column("done_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
        sa.UniqueConstraint("source_name", "external_id", name=op.f("uq_erasures_source_name_external_id")),
    )
    op.create_index("ix_erasures_item", "erasures", ["item_id"])
    op.create_index("ix_erasures_open", "erasures", ["looked_at"], postgresql_where=sa.text("done_at IS NULL"))
    op.add_column("unified_items", sa.Column("earlier", ARRAY(sa.BigInteger()), nullable=True))
    op.add_column("unified_items", sa.Column("erased_at", TIME, nullable=True))
    op.add_column("etl_runs", sa.Column("requests", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("etl_runs", "requests")
    op.drop_column("unified_items", "erased_at")
    op.drop_column("unified_items", "earlier")
    op.drop_table("erasures")
    op.drop_table("etl_requests")
