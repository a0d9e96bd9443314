"""Deletions: what a complete run has met, and how many items are served more or less since a batch."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import UUID

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

STAGES = ("queued", "extracting", "waiting", "loading")
COUNTERS = ("ids_seen", "ids_lacking", "items_deleted")


def _check(*stages: str) -> None:
    """Put in the place of the other; a later migration has it look at the rows, which keeps nobody from writing."""
    name, listed = "ck_etl_runs_stage", ", ".join(map(repr, stages))
    op.execute(
        f"ALTER TABLE etl_runs DROP CONSTRAINT {name}, ADD CONSTRAINT {name} CHECK (stage IN ({listed})) NOT VALID"
    )


def upgrade() -> None:
    op.create_table(
        "seen_ids",
        sa.Column("run_id", UUID(as_uuid=True), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "external_id", "number", name=op.f("pk_seen_ids")),
        prefixes=["UNLOGGED"],
    )
    for name in COUNTERS:
        op.add_column("etl_runs", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.add_column(
        "etl_runs", sa.Column("accept_deletions", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("etl_batches", sa.Column("items_gained", sa.BigInteger(), nullable=True))
    _check(*STAGES, "deleting", "done")


def downgrade() -> None:
    op.execute("UPDATE etl_runs SET stage = 'loading' WHERE stage = 'deleting'")
    _check(*STAGES, "done")
    op.drop_column("etl_batches", "items_gained")
    op.drop_column("etl_runs", "accept_deletions")
    for name in reversed(COUNTERS):
        op.drop_column("etl_runs", name)
    op.drop_table("seen_ids")
