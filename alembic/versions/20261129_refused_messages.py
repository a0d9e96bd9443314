"""Messages that were refused by themselves keep no others waiting; causes know the tags of each source together."""

from __future__ import annotations

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE alert_deliveries ADD COLUMN IF NOT EXISTS refused boolean NOT NULL DEFAULT false")
    op.execute("""
        UPDATE alert_incidents i SET tags = m.audiences
        FROM (
            SELECT cause, array_agg(DISTINCT coalesce(
                (SELECT string_agg(tag, ',' ORDER BY tag COLLATE "C") FROM unnest(tags) AS of (tag)), '')) AS audiences
            FROM alert_members WHERE source_name IS NOT NULL GROUP BY cause) m
        WHERE m.cause = i.cause AND i.told <> 'nothing'
    """)


def downgrade() -> None:
    op.drop_column("alert_deliveries", "refused")
