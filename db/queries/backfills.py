"""Backfills: queued, and let go on as there is room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.events import record_event
from db.queries.processes import are_of_one_release
from db.statement import text
from db.states import ACTIVE_RUN
from etl.errors import AlreadyActiveError, OlderReleaseError
from etl.runs.backfills import AT_ONCE
from etl.runs.messages import ExtractMessage
from etl.runs.outcome import Trigger

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.runs.backfills import Span

START_LOCK = 7236150426

_QUEUE = text("""
    INSERT INTO etl_runs (run_id, source_name, source_type, lane, trigger, status, stage, scope, read_all)
    SELECT :run_id, name, type, 'backfill', :trigger, 'queued', 'queued', CAST(:span AS jsonb), true
    FROM sources WHERE name = :source_name
    ON CONFLICT DO NOTHING
    RETURNING run_id
""")
_ACTIVE = text(f"SELECT run_id FROM etl_runs WHERE source_name = :name AND lane = 'backfill' AND {ACTIVE_RUN}")


def queue_backfill(connection: Connection, run_id: UUID, source_name: str, span: Span) -> list[ExtractMessage]:
    """Queue a backfill of a source that there is; the messages of those that may begin now.

    Raises:
        OlderReleaseError: a worker that knows no backfills is alive, and would fetch as usual instead.
        AlreadyActiveError: another one is active.
    """
    if not are_of_one_release(connection):
        raise OlderReleaseError("a process of another release is alive; ask again once all are upgraded")
    values = {"run_id": run_id, "source_name": source_name, "trigger": Trigger.BACKFILL}
    if connection.execute(_QUEUE, values | {"span": msgspec.json.encode(span).decode()}).first() is None:
        active = connection.execute(_ACTIVE, {"name": source_name}).scalar()
        if active == run_id:
            # Whether it was queued was not known.
            return start_backfills(connection)
        raise AlreadyActiveError(f"{source_name!r} has an active backfill: {active}", active_run_id=active)
    record_event(connection, run_id, "queued", trigger=Trigger.BACKFILL)
    return start_backfills(connection)


def start_backfills(connection: Connection) -> list[ExtractMessage]:
    """Mark as sent the queued backfills that there is room for, the oldest first; their messages."""
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": START_LOCK}).scalar_one():
        return []
    rows = connection.execute(_START, {"most": AT_ONCE})
    return [ExtractMessage(run_id, low=True) for run_id in rows.scalars()]


_START = text(f"""
    WITH active AS (
        SELECT run_id, created_at, status = 'queued' AND dispatched_at IS NULL AS waits FROM etl_runs
        WHERE lane = 'backfill' AND {ACTIVE_RUN}
    )
    UPDATE etl_runs SET dispatched_at = statement_timestamp()
    WHERE run_id = ANY (ARRAY(
        SELECT run_id FROM active WHERE waits ORDER BY created_at
        LIMIT greatest(:most - (SELECT count(*) FROM active WHERE NOT waits), 0)))
    RETURNING run_id
""")


def note_window(connection: Connection, run_id: UUID, number: int, detail: dict[str, Any]) -> None:
    """Put on a run's record that a window was read: once, also when the slice that did it has to do it again."""
    known = connection.execute(_KNOWN, {"run_id": run_id, "number": number}).scalar_one()
    if not known:
        record_event(connection, run_id, "window", number=number, **detail)


_KNOWN = text("""
    SELECT EXISTS (SELECT 1 FROM etl_run_events
                   WHERE run_id = :run_id AND event = 'window' AND (detail ->> 'number')::int = :number)
""")
