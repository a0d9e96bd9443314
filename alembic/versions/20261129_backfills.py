"""Backfills of a source are found by an index."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


INDEX = "ix_etl_runs_backfills"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # It waits for those who began before, and nobody waits for it.
        op.execute("SET lock_timeout = '60s'")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.execute(f"CREATE INDEX CONCURRENTLY {INDEX} ON etl_runs (source_name, completed_at) WHERE lane = 'backfill'")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.drop_index(INDEX, "etl_runs")
