"""What is old, found by its age; failed runs, grouped from an index; which key replaced another, and since when a source is paused."""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_rejected_records_closed": "rejected_records (last_seen_at) WHERE state <> 'open'",
    "ix_source_versions_made_at": "source_versions (made_at)",
    # Groups of failed runs are read from it alone.
    "ix_etl_runs_failed": "etl_runs (completed_at) INCLUDE (error_fingerprint, source_name, run_id) "
    "WHERE error_fingerprint IS NOT NULL",
}


def upgrade() -> None:
    op.execute("ALTER TABLE api_keys ADD COLUMN IF NOT EXISTS replaced_by integer")
    op.execute("ALTER TABLE sources ADD COLUMN IF NOT EXISTS paused_at timestamptz")
    with op.get_context().autocommit_block():
        # It waits for those who began before, and nobody waits for it.
        op.execute("SET lock_timeout = '60s'")
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.drop_index("ix_rejected_records_closed", "rejected_records")
    op.drop_index("ix_etl_runs_failed", "etl_runs")
    op.execute("CREATE INDEX ix_etl_runs_failed ON etl_runs (completed_at) WHERE error_fingerprint IS NOT NULL")
    op.drop_index("ix_source_versions_made_at", "source_versions")
    op.drop_column("sources", "paused_at")
    op.drop_column("api_keys", "replaced_by")
