"""What a run consists of: its batches, and what it asked of its source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.statement import text

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection, Row

MOST = 200

_BATCHES = text("""
    SELECT number, part, state, attempt, records_extracted, records_inserted, records_updated, records_unchanged,
        records_duplicate, records_failed, created_at, normalized_at, loaded_at, failure
    FROM etl_batches WHERE run_id = :run_id ORDER BY number DESC, part LIMIT :limit
""")
_REQUESTS = text("""
    SELECT at, method, url, status, bytes, seconds, attempt, error
    FROM etl_requests WHERE run_id = :run_id ORDER BY request_id DESC LIMIT :limit
""")


def list_batches(connection: Connection, run_id: UUID) -> list[Row[Any]]:
    """The newest batches of a run."""
    return list(connection.execute(_BATCHES, {"run_id": run_id, "limit": MOST}))


def list_requests(connection: Connection, run_id: UUID) -> list[Row[Any]]:
    """The newest requests of a run."""
    return list(connection.execute(_REQUESTS, {"run_id": run_id, "limit": MOST}))
