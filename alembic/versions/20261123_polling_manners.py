"""Polling manners.

What a source's server asks for between two polls, and where it has moved to.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE sources
            ADD COLUMN not_before_reason TEXT,
            ADD COLUMN rest JSONB,
            ADD COLUMN moved_to TEXT,
            ADD COLUMN moved_count INTEGER DEFAULT '0' NOT NULL,
            ADD COLUMN gone_reason TEXT
    """)


def downgrade() -> None:
    op.execute("""
        ALTER TABLE sources
            DROP COLUMN not_before_reason, DROP COLUMN rest, DROP COLUMN moved_to, DROP COLUMN moved_count,
            DROP COLUMN gone_reason
    """)
