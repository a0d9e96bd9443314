"""The orders by amount and by rating, by type of source, and how frequent categories are.

Feeds have no such values: to find none of them, all the others were passed. Each type has an index of its own now.
Categories are found by their first characters, and of an expression in an index over a part of a table the planner
knows nothing.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

COLUMNS, TYPES = ("amount", "rating"), ("api", "csv", "rss")
NEW = {
    f"ix_unified_items_{of}_by_{column}": f"({column}, id) WHERE status = 'active' AND source_type = '{of}'"
    for column in COLUMNS
    for of in TYPES
}
OLD = {
    f"ix_unified_items_by_{column}": f"({column}, id) INCLUDE (source_type) WHERE status = 'active'"
    for column in COLUMNS
}
STATISTICS = "st_unified_items_category ON (left(category, 200)) FROM unified_items"
VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # It waits for those who began before, and nobody waits for it.
        op.execute("SET lock_timeout = '60s'")
        op.execute("SET statement_timeout = 0")
        for name, definition in NEW.items():
            _make(name, definition)
        for name in OLD:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE STATISTICS IF NOT EXISTS {STATISTICS}")
        op.execute("ANALYZE unified_items")
        op.execute("RESET lock_timeout")
        op.execute("RESET statement_timeout")


def _make(name: str, definition: str) -> None:
    if op.get_bind().execute(VALID, {"name": name}).scalar():
        return
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE INDEX CONCURRENTLY {name} ON unified_items {definition}")


def downgrade() -> None:
    op.execute("DROP STATISTICS st_unified_items_category")
    for name in NEW:
        op.drop_index(name, "unified_items")
    for name, definition in OLD.items():
        op.execute(f"CREATE INDEX {name} ON unified_items {definition}")
