"""Sources that are deleted with their items; and those that are disabled say so in their documents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "source_removals",
        sa.Column("source_name", sa.Text(), nullable=False),
        sa.Column("asked_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("after", sa.Text(), server_default="", nullable=False),
        sa.Column("emptied_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("source_name", name=op.f("pk_source_removals")),
    )
    op.execute("""
        UPDATE sources SET config = config || '{"enabled": false}'
        WHERE NOT enabled AND config -> 'enabled' IS DISTINCT FROM 'false'::jsonb
    """)


def downgrade() -> None:
    op.drop_table("source_removals")
