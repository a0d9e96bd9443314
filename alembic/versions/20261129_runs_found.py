"""Runs found by their lane, by what began them, and by what they failed of, where those are the few."""

from __future__ import annotations

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_etl_runs_other_lanes": "etl_runs (lane, created_at, run_id) WHERE lane <> 'fetch'",
    "ix_etl_runs_asked": "etl_runs (trigger, created_at, run_id) WHERE trigger <> 'schedule'",
    "ix_etl_runs_error_code": "etl_runs (error_code, created_at, run_id) WHERE error_fingerprint IS NOT NULL",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # It waits for those who began before, and nobody waits for it.
        op.execute("SET lock_timeout = '60s'")
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, "etl_runs")
