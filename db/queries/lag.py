"""How long ago sources were read: the longest ones, so that the list has an end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.statement import text
from db.states import IS_PAUSED

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

_LAG = text(f"""
    SELECT s.name, extract(epoch FROM clock_timestamp() - coalesce(c.last_read_at, s.created_at))::float8 AS seconds,
        s.late_since IS NOT NULL AS is_late
    FROM sources s LEFT JOIN etl_checkpoints c ON c.source_name = s.name
    WHERE s.enabled AND s.gone_reason IS NULL AND NOT {IS_PAUSED}
    ORDER BY s.late_since IS NULL, coalesce(c.last_read_at, s.created_at), s.name LIMIT :limit
""")


def longest_lags(connection: Connection, limit: int) -> list[Row[Any]]:
    """The sources that are read and were not for the longest time, late ones first."""
    return list(connection.execute(_LAG, {"limit": limit}))
