"""The totals of `/stats` and the states of `/health`: what is rolled up plus what is not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# Rolled-up totals, and the deltas of runs and batches that ended since. One statement, so one snapshot.
_TOTALS = """
    WITH ended AS (
        SELECT source_name, max(source_type) AS source_type, count(*) AS runs,
            count(*) FILTER (WHERE status = 'success') AS success,
            count(*) FILTER (WHERE status = 'partial') AS partial, count(*) FILTER (WHERE status = 'failed') AS failed,
            sum(records_extracted) AS extracted,
            sum(extract(epoch FROM completed_at - started_at))
                FILTER (WHERE status IN ('success', 'partial', 'failed')) AS seconds,
            max(completed_at) FILTER (WHERE status = 'success') AS last_success_at,
            max(completed_at) FILTER (WHERE status = 'failed') AS last_failure_at,
            max(completed_at) AS last_run_at,
            -- a run that was left out says nothing about the source
            (array_agg(status ORDER BY completed_at DESC) FILTER (WHERE status <> 'skipped'))[1] AS last_status
        FROM etl_runs WHERE NOT rolled_up AND completed_at IS NOT NULL AND source_type IS NOT NULL GROUP BY source_name
    ), loaded AS (
        SELECT source_name, sum(records_inserted) AS inserted FROM etl_batches
        WHERE NOT rolled_up AND NOT (state IN ('extracted', 'normalized')) GROUP BY source_name
    ), names AS (
        SELECT name FROM sources UNION SELECT source_name FROM etl_checkpoints
        UNION SELECT source_name FROM ended UNION SELECT source_name FROM loaded
    ), totals AS (
        SELECT names.name AS source_name, coalesce(c.source_type, e.source_type, s.type) AS source_type,
            s.name IS NOT NULL AND s.enabled AND s.gone_reason IS NULL AS active,
            s.name IS NOT NULL AND s.enabled AS enabled, s.name IS NOT NULL AS declared,
            s.next_run_at, s.paused_until, s.not_before, s.gone_reason, s.config -> 'request' ->> 'url' AS url,
            (coalesce(c.total_items, 0) + coalesce(l.inserted, 0))::bigint AS items,
            (coalesce(c.total_runs, 0) + coalesce(e.runs, 0))::bigint AS runs,
            (coalesce(c.total_success, 0) + coalesce(e.success, 0))::bigint AS success,
            (coalesce(c.total_partial, 0) + coalesce(e.partial, 0))::bigint AS partial,
            (coalesce(c.total_failed, 0) + coalesce(e.failed, 0))::bigint AS failed,
            (coalesce(c.total_extracted, 0) + coalesce(e.extracted, 0))::bigint AS extracted,
            (coalesce(c.total_seconds, 0) + coalesce(e.seconds, 0))::double precision AS seconds,
            greatest(c.last_success_at, e.last_success_at) AS last_success_at,
            greatest(c.last_failure_at, e.last_failure_at) AS last_failure_at,
            coalesce(e.last_status, c.last_status) AS last_status,
            greatest(c.last_run_at, e.last_run_at) AS last_run_at, c.value AS checkpoint
        FROM names
        LEFT JOIN sources s ON s.name = names.name
        LEFT JOIN etl_checkpoints c ON c.source_name = names.name
        LEFT JOIN ended e ON e.source_name = names.name
        LEFT JOIN loaded l ON l.source_name = names.name
    )
"""


def source_totals(connection: Connection, *, limit: int, offset: int = 0) -> list[Row[Any]]:
    """Totals by source, by name."""
    query = (
        _TOTALS + " SELECT * FROM totals WHERE declared OR runs > 0 ORDER BY source_name LIMIT :limit OFFSET :offset"
    )
    return list(connection.execute(text(query), {"limit": limit, "offset": offset}))


def overall(connection: Connection) -> Row[Any]:
    """Totals over all sources, and the items by source type."""
    query = (
        _TOTALS
        + """
        SELECT coalesce(sum(items), 0)::bigint AS items, count(*) FILTER (WHERE declared) AS sources,
            count(*) FILTER (WHERE active) AS active, max(last_success_at) AS last_success_at,
            max(last_failure_at) AS last_failure_at,
            sum(seconds) / nullif(sum(success + partial + failed), 0) AS average_seconds,
            (SELECT coalesce(jsonb_object_agg(source_type, n), '{}'::jsonb) FROM (
                SELECT source_type, sum(items)::bigint AS n FROM totals WHERE items > 0 GROUP BY source_type) t
            ) AS by_type
        FROM totals
        """
    )
    return connection.execute(text(query)).one()


def known_items(connection: Connection, source_type: str | None, source_name: str | None) -> int:
    """How many items there are, from the counters."""
    query = (
        _TOTALS
        + """
        SELECT coalesce(sum(items), 0)::bigint FROM totals
        WHERE (CAST(:type AS text) IS NULL OR source_type = :type)
          AND (CAST(:name AS text) IS NULL OR source_name = :name)
        """
    )
    return int(connection.execute(text(query), {"type": source_type, "name": source_name}).scalar_one())


def source_health(connection: Connection, *, limit: int) -> list[Row[Any]]:
    """Declared and enabled sources, failing ones first."""
    query = (
        _TOTALS
        + """
        SELECT t.*, (SELECT status FROM etl_runs r WHERE r.source_name = t.source_name AND r.lane = 'fetch'
                     AND r.status IN ('queued', 'running')) AS active_status
        FROM totals t WHERE enabled
        ORDER BY (gone_reason IS NOT NULL) DESC, (last_status = 'failed') DESC NULLS LAST,
            (last_status = 'partial') DESC NULLS LAST, source_name
        LIMIT :limit
        """
    )
    return list(connection.execute(text(query), {"limit": limit}))


def health_counts(connection: Connection) -> Row[Any]:
    """How many sources are active, and how many of them ended well or badly last time."""
    query = (
        _TOTALS
        + """
        SELECT count(*) AS total, count(*) FILTER (WHERE last_status IN ('success', 'partial')) AS successful,
            count(*) FILTER (WHERE last_status = 'failed') AS failed
        FROM totals WHERE enabled
        """
    )
    return connection.execute(text(query)).one()
