"""The stored rows of a source, found by its name, and the cases of a source, or of all, by their state.

All are made beside the writers; of the raw rows, one for each partition.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

from db.patience import LOCK_WAIT, patiently

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

PARENT = "ix_raw_data_of_source"
PARTITIONS = text("""
    SELECT inhrelid::regclass::text AS name,
        EXISTS (SELECT 1 FROM pg_index i JOIN pg_inherits a ON a.inhrelid = i.indexrelid
                WHERE i.indrelid = p.inhrelid AND a.inhparent = to_regclass(:parent)) AS has_one
    FROM pg_inherits p WHERE inhparent = 'raw_data'::regclass
""")
INDEXES = {
    "ix_etl_batches_dropped": "etl_batches (source_name, run_id) WHERE state = 'dropped'",
    "ix_rejected_records_raw": "rejected_records (source_name, raw_data_id)",
    "ix_rejected_records_discarded": "rejected_records (source_name, content_hash) WHERE state = 'discarded'",
    "ix_rejected_records_by_state": "rejected_records (state, id)",
    "ix_rejected_records_of_source": "rejected_records (source_name, state, id)",
}
VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET statement_timeout = 0")
        # For partitions that come from now on; it is valid once all that there are have theirs.
        _do(f"CREATE INDEX IF NOT EXISTS {PARENT} ON ONLY raw_data (source_name, id)")
        for row in op.get_bind().execute(PARTITIONS, {"parent": PARENT}).all():
            if not row.has_one:
                _make_part(row.name)
        for name, definition in INDEXES.items():
            _make(name, definition)
        op.execute("RESET lock_timeout")
        op.execute("RESET statement_timeout")


def _make(name: str, definition: str) -> None:
    if not op.get_bind().execute(VALID, {"name": name}).scalar():
        # It waits for those who began before, and nobody waits for it.
        op.execute("SET lock_timeout = '60s'")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")


def _make_part(partition: str) -> None:
    name = f"ix_{partition}_of_source"
    _make(name, f"{partition} (source_name, id)")
    _do(f"ALTER INDEX {PARENT} ATTACH PARTITION {name}")


def _do(statement: str) -> None:
    """What others would wait for waits only for a moment, again and again."""
    op.execute(f"SET lock_timeout = '{LOCK_WAIT}'")
    patiently(lambda: op.execute(statement), lambda: f"a table stays in use: {statement}")


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name)
    op.drop_index(PARENT, "raw_data")
