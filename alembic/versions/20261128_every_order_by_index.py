"""Every order by index.

An index over the active items for each order, one for the deleted ones, and categories beside the words. All are made
beside the writers, and take the place of those that were there; what an earlier attempt left half made is made anew,
and what it finished stays.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ACTIVE, DELETED = "WHERE status = 'active'", "WHERE status = 'deleted'"
# Longer ones would not fit.
TITLE, CATEGORY = '(left(title, 200) COLLATE "C")', "(left(category, 200))"
NEW = {
    "ix_unified_items_by_created": f"(created_at, id) INCLUDE (source_type) {ACTIVE}",
    "ix_unified_items_by_updated": "(updated_at, id)"
    f" INCLUDE (source_type, created_at, published_at, amount, rating) {ACTIVE}",
    "ix_unified_items_by_published": "(published_at, id)"
    f" INCLUDE (source_type, created_at, updated_at, amount, rating) {ACTIVE}",
    "ix_unified_items_by_title": f"({TITLE}, id) INCLUDE (source_type) {ACTIVE}",
    "ix_unified_items_by_amount": f"(amount, id) INCLUDE (source_type) {ACTIVE}",
    "ix_unified_items_by_rating": f"(rating, id) INCLUDE (source_type) {ACTIVE}",
    "ix_unified_items_of_source": "(source_name, created_at, id)"
    f" INCLUDE (source_type, updated_at, published_at, amount, rating) {ACTIVE}",
    "ix_unified_items_words": f"USING gin (source_name, {CATEGORY}, search) {ACTIVE}",
    "ix_unified_items_deleted": "(created_at, id)"
    f" INCLUDE (source_type, source_name, updated_at, published_at, amount, rating) {DELETED}",
    "ix_unified_items_deleted_by_title": f"({TITLE}, id) INCLUDE (source_type, source_name) {DELETED}",
    "ix_unified_items_deleted_words": f"USING gin (source_name, {CATEGORY}, search) {DELETED}",
}
OLD = {
    "ix_unified_items_created": "(created_at, id)",
    "ix_unified_items_updated": "(updated_at, id)",
    "ix_unified_items_published": "(published_at, id)",
    "ix_unified_items_source": "(source_name, created_at, id)",
    "ix_unified_items_search": "USING gin (source_name, search)",
}


# Paths could make numbers of any length; a thousand decimals are kept, and the raw row has the others.
DECIMALS = 1000
VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # It waits for those who began before, and nobody waits for it. On a large table one index takes minutes.
        op.execute("SET lock_timeout = '60s'")
        op.execute("SET statement_timeout = 0")
        for column in ("amount", "rating"):
            op.execute(
                f"UPDATE unified_items SET {column} = round({column}, {DECIMALS}) WHERE scale({column}) > {DECIMALS}"
            )
        for name, definition in NEW.items():
            _make(name, definition)
        op.execute("ANALYZE unified_items")
        for name in OLD:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute("RESET lock_timeout")
        op.execute("RESET statement_timeout")


def _make(name: str, definition: str) -> None:
    if op.get_bind().execute(VALID, {"name": name}).scalar():
        return
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute(f"CREATE INDEX CONCURRENTLY {name} ON unified_items {definition}")


def downgrade() -> None:
    for name in NEW:
        op.drop_index(name, "unified_items")
    for name, definition in OLD.items():
        op.execute(f"CREATE INDEX {name} ON unified_items {definition}")
