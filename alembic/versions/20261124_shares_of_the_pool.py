"""Shares of the pool.

What is known of how a source answers, and whether it has killed worker processes: so that a slow or deadly one has a
bounded share of the processes, and one that nobody has seen answer is tried briefly first.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE sources
            ADD COLUMN answered_at TIMESTAMP WITH TIME ZONE,
            ADD COLUMN misses INTEGER DEFAULT '0' NOT NULL,
            ADD COLUMN deaths INTEGER DEFAULT '0' NOT NULL,
            ADD COLUMN death_cause TEXT
    """)
    op.execute("ALTER TABLE etl_runs ADD COLUMN slow BOOLEAN DEFAULT false NOT NULL")
    op.execute("ALTER TABLE etl_workers ADD COLUMN processes INTEGER DEFAULT '1' NOT NULL")
    op.execute("""
        CREATE INDEX ix_etl_runs_slow ON etl_runs (dispatched_at)
        WHERE slow AND status IN ('queued', 'running') AND extracted_at IS NULL
    """)
    # Who has answered before need not prove it again.
    op.execute("""
        UPDATE sources s SET answered_at = known.at FROM (
            SELECT source_name, max(at) AS at FROM (
                SELECT source_name, greatest(last_success_at, CASE WHEN last_status = 'partial' THEN last_run_at END) AS at
                FROM etl_checkpoints
                UNION ALL SELECT source_name, completed_at FROM etl_runs
                WHERE NOT rolled_up AND status IN ('success', 'partial')
            ) ended GROUP BY source_name
        ) known WHERE known.source_name = s.name AND known.at IS NOT NULL
    """)


def downgrade() -> None:
    op.execute("DROP INDEX ix_etl_runs_slow")
    op.execute("ALTER TABLE etl_runs DROP COLUMN slow")
    op.execute("ALTER TABLE etl_workers DROP COLUMN processes")
    op.execute("""
        ALTER TABLE sources
            DROP COLUMN answered_at, DROP COLUMN misses, DROP COLUMN deaths, DROP COLUMN death_cause
    """)
