"""A mark says which transactions could be seen when it was written, and a floor by which it was raised.

Mirrors of before begin anew.
"""

from __future__ import annotations

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE mirror_marks ADD COLUMN IF NOT EXISTS seen pg_snapshot")
    op.execute("ALTER TABLE mirror_floor ADD COLUMN IF NOT EXISTS raised xid8")
    # Some say they are of this cluster, and were brought by a restore.
    op.execute("DELETE FROM mirror_marks")
    op.execute("DELETE FROM mirror_floor")


def downgrade() -> None:
    op.drop_column("mirror_floor", "raised")
    op.drop_column("mirror_marks", "seen")
