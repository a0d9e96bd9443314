"""Totals.

The sums of all sources' counters by type, so that nobody has to add up ten thousand sources to show one number.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE etl_totals (
            source_type TEXT NOT NULL,
            items BIGINT DEFAULT '0' NOT NULL,
            judged BIGINT DEFAULT '0' NOT NULL,
            seconds NUMERIC DEFAULT '0' NOT NULL,
            last_success_at TIMESTAMP WITH TIME ZONE,
            last_failure_at TIMESTAMP WITH TIME ZONE,
            CONSTRAINT pk_etl_totals PRIMARY KEY (source_type)
        )
    """)
    op.execute("""
        INSERT INTO etl_totals (source_type, items, judged, seconds, last_success_at, last_failure_at)
        SELECT source_type, sum(total_items), sum(total_success + total_partial + total_failed), sum(total_seconds),
            max(last_success_at), max(last_failure_at)
        FROM etl_checkpoints GROUP BY source_type
    """)


def downgrade() -> None:
    op.execute("DROP TABLE etl_totals")
