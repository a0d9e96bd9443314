"""No statistics of `source_name`.

The planner takes a source that is not in its statistics for empty, and then looks up a batch's ids by reading all items
of that source, again and again: the first load of a new source became quadratic. Without statistics it takes every
source for large, which costs an empty one nothing.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE unified_items ALTER COLUMN source_name SET STATISTICS 0")
    # The same type: nothing is rewritten, but what was gathered is forgotten.
    op.execute("ALTER TABLE unified_items ALTER COLUMN source_name TYPE TEXT")


def downgrade() -> None:
    op.execute("ALTER TABLE unified_items ALTER COLUMN source_name SET STATISTICS -1")
