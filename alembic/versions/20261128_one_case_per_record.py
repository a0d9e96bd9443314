"""One case per record.

The open cases of a record are merged, those whose item is loaded are closed, and from then on there is one at most.
All of it while others write; what they add meanwhile is merged as well.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEX = "uq_rejected_records_case"
RECORD = "coalesce('=' || external_id, encode(content_hash, 'hex'))"
ATTEMPTS = 10

# The newest case stays open, and knows since when there has been one.
_MERGE = text(f"""
    WITH ranked AS (
        SELECT id, count(*) OVER record AS cases, min(first_seen_at) OVER record AS since,
            id = max(id) OVER record AS is_newest
        FROM rejected_records WHERE source_name = :source AND state = 'open'
        WINDOW record AS (PARTITION BY {RECORD})
    )
    UPDATE rejected_records r
    SET state = CASE WHEN is_newest THEN 'open' ELSE 'superseded' END, first_seen_at = since,
        attempts = CASE WHEN is_newest THEN cases ELSE attempts END
    FROM ranked WHERE ranked.id = r.id AND cases > 1
""")
_CLOSE_LOADED = text("""
    UPDATE rejected_records r SET state = 'superseded'
    FROM unified_items i
    WHERE r.source_name = :source AND r.state = 'open' AND i.source_name = r.source_name
      AND i.external_id = r.external_id AND i.raw_data_id >= r.raw_data_id
""")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE rejected_records VALIDATE CONSTRAINT ck_rejected_records_state")
        op.execute("SET lock_timeout = '60s'")
        for attempt in range(1, ATTEMPTS + 1):
            _merge()
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
            try:
                op.execute(
                    f"CREATE UNIQUE INDEX CONCURRENTLY {INDEX} ON rejected_records (source_name, ({RECORD})) "
                    "WHERE state = 'open'"
                )
                break
            except IntegrityError:
                if attempt == ATTEMPTS:
                    raise
        op.execute("RESET lock_timeout")


def _merge() -> None:
    connection = op.get_bind()
    sources = connection.execute(text("SELECT DISTINCT source_name FROM rejected_records WHERE state = 'open'"))
    for source in sources.scalars().all():
        connection.execute(_CLOSE_LOADED, {"source": source})
        connection.execute(_MERGE, {"source": source})


def downgrade() -> None:
    op.drop_index(INDEX, "rejected_records")
