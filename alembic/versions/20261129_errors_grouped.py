"""Failed runs by what they failed of, and how runs ended by the hour."""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

FAILED = "error_fingerprint IS NOT NULL"
INDEXES = {"ix_etl_runs_failed": "completed_at", "ix_etl_runs_failed_of": "error_fingerprint, completed_at"}


def upgrade() -> None:
    op.execute("ALTER TABLE etl_runs ADD COLUMN IF NOT EXISTS error_fingerprint text")
    op.execute("""
        CREATE TABLE IF NOT EXISTS etl_hours (
            hour timestamptz NOT NULL,
            status text NOT NULL,
            runs bigint NOT NULL DEFAULT '0',
            CONSTRAINT pk_etl_hours PRIMARY KEY (hour, status)
        )
    """)
    with op.get_context().autocommit_block():
        # It waits for those who began before, and nobody waits for it.
        op.execute("SET lock_timeout = '60s'")
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON etl_runs ({columns}) WHERE {FAILED}")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, "etl_runs")
    op.drop_table("etl_hours")
    op.drop_column("etl_runs", "error_fingerprint")
