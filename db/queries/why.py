"""What is known of a source and of those that serve it, to tell why it is not read, or not well."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.queries.processes import count_alive, last_seen
from db.queries.share import IS_SET_ASIDE
from db.queries.source_list import FOR_EVER
from db.statement import text
from db.states import ACTIVE_RUN, IS_PAUSED
from etl.errors import UnknownSourceError
from etl.runs.outcome import Stage, Status
from etl.runs.why import ActiveRun, EndedRun, Situation, Skipped

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

_SOURCE = text(f"""
    SELECT s.name, s.config -> 'request' ->> 'url' AS url, clock_timestamp() AS now, s.enabled, {IS_PAUSED} AS paused,
        nullif(s.paused_until, {FOR_EVER}) AS paused_until, s.paused_at, s.gone_reason, {IS_SET_ASIDE} AS set_aside,
        s.deaths, s.death_cause, s.not_before, s.not_before_reason, s.next_run_at, s.updated_at, s.late_since,
        coalesce((SELECT r.slots_missed FROM etl_runs r WHERE r.source_name = s.name AND r.scheduled_for IS NOT NULL
                  ORDER BY r.scheduled_for DESC LIMIT 1), 0) AS slots_missed
    FROM sources s WHERE s.name = :name
""")
# Of those before it as many are counted as anyone wants to know of.
_RUN = text(f"""
    SELECT r.run_id, r.status, r.stage,
        CASE WHEN r.stage = 'queued' THEN greatest(r.created_at, r.not_before) ELSE r.created_at END AS created_at,
        r.dispatched_at IS NOT NULL AS is_sent, r.slow AS is_slow, r.not_before,
        (SELECT count(*) FROM (
            SELECT 1 FROM etl_runs q WHERE q.{ACTIVE_RUN} AND q.dispatched_at < r.dispatched_at
              AND q.claimed_at IS NULL AND q.lane = 'fetch' LIMIT 10000) others) AS before,
        (SELECT e.detail ->> 'message' FROM etl_run_events e
         WHERE e.run_id = r.run_id AND e.event = 'retry' ORDER BY e.event_id DESC LIMIT 1) AS retry,
        (SELECT e.at FROM etl_run_events e
         WHERE e.run_id = r.run_id AND e.event = 'retry' ORDER BY e.event_id DESC LIMIT 1) AS retry_at
    FROM etl_runs r WHERE r.source_name = :name AND r.lane = 'fetch' AND r.{ACTIVE_RUN}
""")
# Those of an earlier source of that name say nothing of this one.
_ENDED = """
    SELECT run_id, status, error_code AS code, error_message AS message, completed_at, scheduled_for
    FROM etl_runs WHERE source_name = :name AND lane = 'fetch' AND {status}
      AND created_at >= (SELECT created_at FROM sources WHERE name = :name) ORDER BY created_at DESC LIMIT 1
"""
_LAST = text(_ENDED.format(status="status IN ('success', 'partial', 'failed')"))
_SKIPPED = text(_ENDED.format(status="status = 'skipped' AND scheduled_for IS NOT NULL"))


def situation(connection: Connection, name: str, *, is_scheduling: bool) -> Situation:
    """Where a source stands; its host is not the database's to know.

    Raises:
        UnknownSourceError: there is none.
    """
    row = connection.execute(_SOURCE, {"name": name}).first()
    if row is None:
        raise UnknownSourceError(f"there is no source named {name!r}", source=name)
    run, last, skipped = (connection.execute(query, {"name": name}).first() for query in (_RUN, _LAST, _SKIPPED))
    return Situation(
        **row._asdict(),
        run=_active(run) if run else None,
        last=_ended(last) if last else None,
        skipped=Skipped(skipped.code, skipped.message, skipped.scheduled_for, skipped.completed_at)
        if skipped
        else None,
        workers=count_alive(connection, "worker"),
        scheduler_seen_at=last_seen(connection, "beat"),
        is_scheduling=is_scheduling,
    )


def _ended(row: Row[Any]) -> EndedRun:
    return EndedRun(row.run_id, Status(row.status), row.code, row.message, row.completed_at)


def _active(row: Row[Any]) -> ActiveRun:
    return ActiveRun(**{**row._asdict(), "status": Status(row.status), "stage": Stage(row.stage)})
