"""Failed runs by what they failed of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from db.statement import text
from etl.errors import UnknownErrorGroupError

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Row

# So many of the newest failed runs of a window are looked at.
MOST_RUNS = 10_000
SHOWN_SOURCES = 20
# Of a group that is tried again, runs of so long ago count.
RETRIED_DAYS = 30


@dataclass(frozen=True)
class Groups:
    """The groups of a window, the largest first; of more runs than are looked at, those since `since`."""

    since: datetime
    runs: int
    is_complete: bool
    groups: list[Row[Any]]


_FAILED = """
    WITH failed AS MATERIALIZED (
        -- all of it stands in an index
        SELECT run_id, source_name, error_fingerprint, completed_at FROM etl_runs
        WHERE error_fingerprint IS NOT NULL AND completed_at > clock_timestamp() - make_interval(secs => :seconds)
        ORDER BY completed_at DESC LIMIT :most
    )
"""
_COUNT = text(f"""
    {_FAILED}
    SELECT count(*) AS runs, min(completed_at) AS oldest,
        clock_timestamp() - make_interval(secs => :seconds) AS since FROM failed
""")
_GROUPS = text(f"""
    {_FAILED}, grouped AS (
    SELECT f.error_fingerprint AS fingerprint, (array_agg(f.run_id ORDER BY completed_at DESC))[1] AS sample_run_id,
        count(*) AS runs, count(DISTINCT f.source_name) AS sources_total,
        (array_agg(DISTINCT f.source_name))[1:{SHOWN_SOURCES}] AS sources,
        min(completed_at) AS first_seen_at, max(completed_at) AS last_seen_at
    FROM failed f GROUP BY f.error_fingerprint ORDER BY count(*) DESC, max(completed_at) DESC LIMIT :limit
    )
    SELECT g.*, r.error_code AS code, r.error_message AS message, r.source_name AS sample_source
    FROM grouped g JOIN etl_runs r ON r.run_id = g.sample_run_id ORDER BY g.runs DESC, g.last_seen_at DESC
""")


def group_errors(connection: Connection, window: timedelta, limit: int) -> Groups:
    """What runs have failed of in the last so much time."""
    values = {"seconds": window.total_seconds(), "most": MOST_RUNS, "limit": limit}
    about = connection.execute(_COUNT, values).one()
    is_complete = about.runs < MOST_RUNS
    since = about.since if is_complete else about.oldest
    return Groups(since, about.runs, is_complete, list(connection.execute(_GROUPS, values)))


# Sources that have run well since are not tried again.
_MEANT = text("""
    SELECT f.source_name FROM (
        SELECT DISTINCT source_name FROM etl_runs
        WHERE error_fingerprint = :fingerprint AND completed_at > clock_timestamp() - make_interval(days => :days)
    ) f
    WHERE (SELECT r.error_fingerprint FROM etl_runs r
           WHERE r.source_name = f.source_name AND r.lane = 'fetch' AND r.status IN ('success', 'partial', 'failed')
           ORDER BY r.created_at DESC LIMIT 1) = :fingerprint
    ORDER BY f.source_name
""")
_KNOWN = text("SELECT EXISTS (SELECT 1 FROM etl_runs WHERE error_fingerprint = :fingerprint)")


def sources_failing_of(connection: Connection, fingerprint: str) -> list[str]:
    """The sources whose last run failed of this.

    Raises:
        UnknownErrorGroupError: no run did, ever.
    """
    values = {"fingerprint": fingerprint, "days": RETRIED_DAYS}
    names = list(connection.execute(_MEANT, values).scalars())
    if not names and not connection.execute(_KNOWN, values).scalar_one():
        raise UnknownErrorGroupError(f"no run failed of {fingerprint}")
    return names
