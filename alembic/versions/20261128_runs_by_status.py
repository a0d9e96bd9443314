"""Runs by status.

An index that leads to the newest runs of a status, however many others there are. It is made beside the writers; one
that an earlier attempt left half made is made anew.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

INDEX = "ix_etl_runs_status"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # It waits for those who began before, and nobody waits for it.
        op.execute("SET lock_timeout = '60s'")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.execute(f"CREATE INDEX CONCURRENTLY {INDEX} ON etl_runs (status, created_at, run_id)")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.drop_index(INDEX, "etl_runs")
