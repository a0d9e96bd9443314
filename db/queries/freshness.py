"""Sources that are late, and runs that met too few records or too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.events import record_event
from db.statement import text
from etl.declare.source import parse
from etl.errors import ConfigError
from etl.runs.lateness import REST_DAYS, REST_HOURS, late_after
from etl.runs.volume import REMEMBERED, Band, judge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.runs.volume import Size

# Sources of which it is found out at once how long they may be silent.
LIMIT = 200


def judge_lateness(connection: Connection, *, is_scheduling: bool) -> Sequence[str]:
    """Mark the sources that are late, and unmark those that are not any more; the names of the newly late ones.

    Without a scheduler only those are judged that declare `expect_every`.
    """
    _learn(connection)
    values = {"scheduled": is_scheduling, "hours": REST_HOURS, "days": REST_DAYS}
    names = [row.name for row in connection.execute(_JUDGE, values) if row.is_late]
    if names:
        connection.execute(_TELL, {"names": names})
    return names


def _learn(connection: Connection) -> None:
    """How long sources may be silent that were declared, or declared otherwise, since the last time."""
    rows = connection.execute(_UNKNOWN, {"limit": LIMIT}).all()
    if rows:
        allowed = [{"name": row.name, "version": row.version, "seconds": _allowed(row.config)} for row in rows]
        connection.execute(_LEARN, {"rows": msgspec.json.encode(allowed).decode()})


def _allowed(document: dict[str, Any]) -> float | str:
    try:
        return late_after(parse(document)) or _NEVER
    except ConfigError:
        # A document that this release refuses: its runs say so.
        return _NEVER


_NEVER = "infinity"
_UNKNOWN = text("SELECT name, version, config FROM sources WHERE late_after IS NULL LIMIT :limit")
_LEARN = text("""
    UPDATE sources s SET late_after = r.seconds::double precision
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r(name text, version integer, seconds text)
    WHERE s.name = r.name AND s.version = r.version AND s.late_after IS NULL
""")
# One that is being read is not late. Counted from when it was read last, from when it was declared, or from when it was
# to be asked again: what its server asks for is no fault.
_JUDGE = text("""
    WITH judged AS (
        SELECT s.name, s.late_since,
            s.enabled AND s.gone_reason IS NULL AND (:scheduled OR s.config ? 'expect_every')
            AND s.late_after < 'infinity' AND NOT EXISTS (
                SELECT 1 FROM etl_runs r
                WHERE r.source_name = s.name AND r.lane = 'fetch' AND r.status = 'running' AND r.stage <> 'waiting')
            AND clock_timestamp() > make_interval(secs => s.late_after + CASE
                    WHEN s.config ? 'expect_every' OR s.rest IS NULL THEN 0
                    WHEN jsonb_array_length(coalesce(s.rest -> 'days', '[]')) > 0 THEN :days ELSE :hours END)
                + greatest(c.last_read_at, s.updated_at, s.paused_until,
                    CASE WHEN s.not_before_reason IS DISTINCT FROM 'set_aside' THEN s.not_before END) AS is_late
        FROM sources s LEFT JOIN etl_checkpoints c ON c.source_name = s.name
        WHERE s.late_after IS NOT NULL
    )
    UPDATE sources s SET late_since = CASE WHEN j.is_late THEN clock_timestamp() END
    FROM judged j
    WHERE s.name = j.name AND j.is_late <> (s.late_since IS NOT NULL)
    RETURNING s.name, j.is_late
""")
# It is told where people look: at the last run there was.
_TELL = text("""
    INSERT INTO etl_run_events (run_id, event, detail)
    SELECT r.run_id, 'late', jsonb_build_object('late_after_seconds', s.late_after)
    FROM sources s
    CROSS JOIN LATERAL (
        SELECT run_id FROM etl_runs r WHERE r.source_name = s.name ORDER BY created_at DESC LIMIT 1) r
    WHERE s.name = ANY (:names)
""")


def judge_size(connection: Connection, run_id: UUID, config: dict[str, Any], size: int) -> Size | None:
    """Whether a run that has read all of its source met as many records as it should; what is odd about it if not."""
    row = connection.execute(_SIZES, {"run_id": run_id}).first()
    sizes = list(row.sizes or ()) if row else []
    declared = config.get("expect_rows")
    # Of a source that tells what is new only, no size is usual.
    is_partial = bool(config.get("incremental")) or config.get("mode") == "append"
    band = Band.declared(declared) if declared else None if is_partial else Band.usual(sizes)
    odd = judge(size, band, [] if is_partial else sizes)
    values = {"run_id": run_id, "odd": odd, "sizes": [size, *sizes][:REMEMBERED]}
    connection.execute(_KEEP, values)
    if odd is not None:
        expected = str(band) if band else None
        message = f"it met {size} records" + (
            f", where {expected} are expected" if expected else ", where others met some"
        )
        record_event(connection, run_id, odd, records=size, expected=expected, message=message)
    return odd


_SIZES = text("""
    SELECT c.sizes FROM etl_runs r JOIN etl_checkpoints c ON c.source_name = r.source_name WHERE r.run_id = :run_id
""")
_KEEP = text("""
    INSERT INTO etl_checkpoints AS c (source_name, source_type, sizes, size_flag)
    SELECT source_name, source_type, CAST(:sizes AS bigint[]), CAST(:odd AS text)
    FROM etl_runs WHERE run_id = :run_id AND source_type IS NOT NULL
    ON CONFLICT (source_name) DO UPDATE SET sizes = excluded.sizes, size_flag = excluded.size_flag
    WHERE (c.sizes, c.size_flag) IS DISTINCT FROM (excluded.sizes, excluded.size_flag)
""")
