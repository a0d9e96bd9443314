"""What a first page shows: how sources and runs are, by bounded reads and counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.queries.share import IS_SET_ASIDE
from db.statement import text
from db.states import ACTIVE_RUN, IS_PAUSED

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

HOURS = 48
# So many open cases are counted; of more it is said that there are more.
MOST_COUNTED = 10_000

_SOURCES = text(f"""
    SELECT count(*) AS total, count(*) FILTER (WHERE NOT enabled) AS disabled,
        count(*) FILTER (WHERE enabled AND {IS_PAUSED}) AS paused,
        count(*) FILTER (WHERE enabled AND {IS_SET_ASIDE}) AS set_aside,
        count(*) FILTER (WHERE enabled AND gone_reason IS NOT NULL) AS gone,
        count(*) FILTER (WHERE enabled AND late_since IS NOT NULL) AS late,
        count(*) FILTER (WHERE enabled AND c.last_status = 'failed') AS failing,
        count(*) FILTER (WHERE enabled AND c.last_status = 'partial') AS in_part,
        count(*) FILTER (WHERE enabled AND c.last_status = 'success' AND late_since IS NULL AND gone_reason IS NULL
            AND NOT {IS_PAUSED} AND NOT {IS_SET_ASIDE}) AS ok
    FROM sources s LEFT JOIN etl_checkpoints c ON c.source_name = s.name
""")
_RUNS = text(f"""
    SELECT count(*) FILTER (WHERE status = 'queued') AS queued,
        count(*) FILTER (WHERE status = 'running' AND stage <> 'waiting') AS running,
        count(*) FILTER (WHERE stage = 'waiting') AS waiting,
        min(dispatched_at) FILTER (WHERE claimed_at IS NULL) AS oldest_sent_at
    FROM etl_runs WHERE {ACTIVE_RUN}
""")
_CASES = text("SELECT count(*) FROM (SELECT 1 FROM rejected_records WHERE state = 'open' LIMIT :most) open")
# What is rolled up, and what is not yet.
_BY_HOUR = text(f"""
    WITH counted AS (
        SELECT hour, status, runs FROM etl_hours
        WHERE hour > date_trunc('hour', clock_timestamp(), 'UTC') - interval '{HOURS} h'
        UNION ALL
        SELECT date_trunc('hour', completed_at, 'UTC'), status, count(*) FROM etl_runs
        WHERE NOT rolled_up AND completed_at IS NOT NULL AND lane = 'fetch'
          AND completed_at >= date_trunc('hour', clock_timestamp(), 'UTC') - interval '{HOURS - 1} h'
        GROUP BY 1, 2
    )
    SELECT h.hour, coalesce(jsonb_object_agg(c.status, c.runs) FILTER (WHERE c.status IS NOT NULL), '{{}}') AS runs
    FROM generate_series(date_trunc('hour', clock_timestamp(), 'UTC') - interval '{HOURS - 1} h',
                         date_trunc('hour', clock_timestamp(), 'UTC'), interval '1 h') AS h(hour)
    LEFT JOIN (SELECT hour, status, sum(runs)::bigint AS runs FROM counted GROUP BY hour, status) c USING (hour)
    GROUP BY h.hour ORDER BY h.hour
""")


def count_sources(connection: Connection) -> Row[Any]:
    """How many sources there are in each state; one may be in several."""
    return connection.execute(_SOURCES).one()


def count_runs(connection: Connection) -> Row[Any]:
    """How many runs are active, and since when the oldest of those that nobody has taken was sent."""
    return connection.execute(_RUNS).one()


def count_open_cases(connection: Connection) -> int:
    """How many rejected records are open, as far as they are counted."""
    return int(connection.execute(_CASES, {"most": MOST_COUNTED + 1}).scalar_one())


def runs_by_hour(connection: Connection) -> list[Row[Any]]:
    """How the runs of the last 48 hours ended, by the hour."""
    return list(connection.execute(_BY_HOUR))
