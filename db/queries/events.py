"""The timeline of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from db.statement import text

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection, Row

MAX_SHOWN = 500

# Of one run; how it ended is noted all the same.
MOST_OF_A_RUN = 5000

_RECORD = text(f"""
    INSERT INTO etl_run_events (run_id, event, detail)
    SELECT :run_id, :event, CAST(:detail AS jsonb)
    WHERE NOT EXISTS (SELECT 1 FROM etl_run_events WHERE run_id = :run_id OFFSET {MOST_OF_A_RUN - 1})
        OR :event IN ('success', 'partial', 'failed', 'cancelled')
""")


def record_event(connection: Connection, /, run_id: UUID, event: str, **detail: Any) -> None:
    """Note that something happened to a run."""
    connection.execute(_RECORD, {"run_id": run_id, "event": event, "detail": msgspec.json.encode(detail).decode()})


def events_after(connection: Connection, run_id: UUID, after: int, limit: int) -> list[Row[Any]]:
    """Events of a run that came after one, in order."""
    query = text("""
        SELECT event_id, at, event, detail FROM etl_run_events WHERE run_id = :run_id AND event_id > :after
        ORDER BY event_id LIMIT :limit
    """)
    return list(connection.execute(query, {"run_id": run_id, "after": after, "limit": limit}))


def list_events(connection: Connection, run_id: UUID) -> list[Row[Any]]:
    """The newest 500 events of a run, in order."""
    query = text("""
        SELECT at, event, detail FROM (
            SELECT event_id, at, event, detail FROM etl_run_events WHERE run_id = :run_id
            ORDER BY event_id DESC LIMIT :limit
        ) newest ORDER BY event_id
    """)
    return list(connection.execute(query, {"run_id": run_id, "limit": MAX_SHOWN}))
