"""Items in the order of their changes, and the marks under which mirrors read them."""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS mirror_marks (
            mark_id bigint GENERATED ALWAYS AS IDENTITY,
            nonce uuid NOT NULL,
            horizon xid8 NOT NULL,
            at timestamptz NOT NULL DEFAULT clock_timestamp(),
            CONSTRAINT pk_mirror_marks PRIMARY KEY (mark_id),
            CONSTRAINT uq_mirror_marks_nonce UNIQUE (nonce)
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS ix_mirror_marks_at ON mirror_marks (at)")
    op.execute("CREATE INDEX IF NOT EXISTS ix_mirror_marks_horizon ON mirror_marks (horizon, at)")
    op.execute("""
        CREATE TABLE IF NOT EXISTS mirror_floor (
            one boolean NOT NULL,
            xid xid8 NOT NULL,
            CONSTRAINT pk_mirror_floor PRIMARY KEY (one),
            CONSTRAINT ck_mirror_floor_one CHECK (one)
        )
    """)
    with op.get_context().autocommit_block():
        # It waits for those who began before, and nobody waits for it.
        op.execute("SET lock_timeout = '60s'")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_unified_items_changed")
        op.execute("CREATE INDEX CONCURRENTLY ix_unified_items_changed ON unified_items (change_xid, id)")
        op.execute("RESET lock_timeout")


def downgrade() -> None:
    op.drop_index("ix_unified_items_changed", "unified_items")
    op.drop_table("mirror_floor")
    op.drop_table("mirror_marks")
