"""The totals of `/stats` and the states of `/health`: what is rolled up plus what is not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.queries.share import IS_SET_ASIDE
from db.statement import text
from db.states import ACTIVE_RUN, JUDGED_RUN, OPEN_BATCH, gained

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

# Rolled-up totals, and the deltas of runs and batches that ended since. One statement, so one snapshot. `{chosen}`
# picks the sources, `{kept}` their checkpoints.
_TOTALS = f"""
    WITH chosen AS ({{chosen}}), ended AS (
        SELECT source_name, max(source_type) AS source_type, count(*) AS runs,
            count(*) FILTER (WHERE status = 'success') AS success,
            count(*) FILTER (WHERE status = 'partial') AS partial, count(*) FILTER (WHERE status = 'failed') AS failed,
            sum(records_extracted) AS extracted,
            max(completed_at) FILTER (WHERE status = 'success') AS last_success_at,
            max(completed_at) FILTER (WHERE status = 'failed') AS last_failure_at,
            max(completed_at) AS last_run_at,
            -- a run that was left out says nothing about the source
            (array_agg(status ORDER BY completed_at DESC) FILTER (WHERE status <> 'skipped'))[1] AS last_status
        FROM etl_runs
        WHERE NOT rolled_up AND completed_at IS NOT NULL AND source_type IS NOT NULL AND lane = 'fetch'
        GROUP BY source_name
    ), loaded AS (
        SELECT source_name, sum({gained("b")}) AS gained FROM etl_batches b
        WHERE NOT rolled_up AND NOT ({OPEN_BATCH}) GROUP BY source_name
    ), totals AS (
        SELECT s.name AS source_name, s.type AS source_type, s.enabled AND s.gone_reason IS NULL AS active, s.enabled,
            s.next_run_at, s.paused_until, s.not_before, s.not_before_reason, s.gone_reason,
            s.late_since, c.size_flag,
            {{set_aside}} AS set_aside,
            s.config -> 'request' ->> 'url' AS url,
            (coalesce(c.total_items, 0) + coalesce(l.gained, 0))::bigint AS items,
            (coalesce(c.total_runs, 0) + coalesce(e.runs, 0))::bigint AS runs,
            (coalesce(c.total_success, 0) + coalesce(e.success, 0))::bigint AS success,
            (coalesce(c.total_partial, 0) + coalesce(e.partial, 0))::bigint AS partial,
            (coalesce(c.total_failed, 0) + coalesce(e.failed, 0))::bigint AS failed,
            (coalesce(c.total_extracted, 0) + coalesce(e.extracted, 0))::bigint AS extracted,
            greatest(c.last_success_at, e.last_success_at) AS last_success_at,
            greatest(c.last_failure_at, e.last_failure_at) AS last_failure_at,
            coalesce(e.last_status, c.last_status) AS last_status,
            greatest(c.last_run_at, e.last_run_at) AS last_run_at, c.value AS checkpoint
        FROM chosen s
        LEFT JOIN ({{kept}}) c ON c.source_name = s.name
        LEFT JOIN ended e ON e.source_name = s.name
        LEFT JOIN loaded l ON l.source_name = s.name
    )
"""
_ALL = _TOTALS.format(set_aside=IS_SET_ASIDE, chosen="SELECT * FROM sources", kept="SELECT * FROM etl_checkpoints")
# The checkpoints of a page are looked up; to join them, all would be read.
_PAGE = _TOTALS.format(
    set_aside=IS_SET_ASIDE,
    chosen="SELECT * FROM sources ORDER BY name LIMIT :limit OFFSET :offset",
    kept="SELECT * FROM etl_checkpoints WHERE source_name = ANY (ARRAY(SELECT name FROM chosen))",
)


def snapshot(connection: Connection) -> str:
    """Which transactions can be seen: as long as that is the same, so are the tables (but not on a standby)."""
    return str(connection.execute(text("SELECT pg_current_snapshot()::text")).scalar_one())


def source_totals(connection: Connection, *, limit: int, offset: int = 0) -> list[Row[Any]]:
    """Totals by source, by name."""
    query = (
        _PAGE
        + """
        SELECT source_name, source_type, items, runs, success, partial, failed, extracted, last_success_at,
            last_failure_at, late_since, size_flag
        FROM totals ORDER BY source_name
        """
    )
    return list(connection.execute(text(query), {"limit": limit, "offset": offset}).all())


# The totals by type, and what has ended since they were made.
_BY_TYPE = f"""
    WITH ended AS (
        SELECT source_type, count(*) FILTER (WHERE {JUDGED_RUN}) AS judged,
            sum(extract(epoch FROM completed_at - started_at))
                FILTER (WHERE {JUDGED_RUN}) AS seconds,
            max(completed_at) FILTER (WHERE status = 'success') AS last_success_at,
            max(completed_at) FILTER (WHERE status = 'failed') AS last_failure_at
        FROM etl_runs
        WHERE NOT rolled_up AND completed_at IS NOT NULL AND source_type IS NOT NULL AND lane = 'fetch'
        GROUP BY source_type
    ), loaded AS (
        SELECT r.source_type, sum({gained("b")}) AS items FROM etl_batches b JOIN etl_runs r USING (run_id)
        WHERE NOT b.rolled_up AND NOT ({OPEN_BATCH}) GROUP BY r.source_type
    ), by_type AS (
        SELECT source_type, items, judged, seconds, last_success_at, last_failure_at FROM etl_totals
        UNION ALL SELECT source_type, 0, judged, coalesce(seconds, 0), last_success_at, last_failure_at FROM ended
        UNION ALL SELECT source_type, items, 0, 0, NULL, NULL FROM loaded
    )
"""


def overall(connection: Connection) -> Row[Any]:
    """Totals over all sources, and the items by source type."""
    query = (
        _BY_TYPE
        + """
        SELECT coalesce(sum(items), 0)::bigint AS items, max(last_success_at) AS last_success_at,
            max(last_failure_at) AS last_failure_at,
            (sum(seconds) / nullif(sum(judged), 0))::double precision AS average_seconds,
            max(declared.sources) AS sources, max(declared.active) AS active,
            (SELECT coalesce(jsonb_object_agg(source_type, n), '{}'::jsonb) FROM (
                SELECT source_type, sum(items)::bigint AS n FROM by_type GROUP BY source_type HAVING sum(items) > 0) t
            ) AS by_type
        FROM (SELECT count(*) AS sources, count(*) FILTER (WHERE enabled AND gone_reason IS NULL) AS active
              FROM sources) declared
        LEFT JOIN by_type ON true
        """
    )
    return connection.execute(text(query)).one()


def known_items(connection: Connection, source_type: str | None, source_name: str | None) -> int:
    """How many items there are, from the counters."""
    if source_name is None:
        query = (
            _BY_TYPE
            + """
            SELECT coalesce(sum(items), 0)::bigint FROM by_type
            WHERE CAST(:type AS text) IS NULL OR source_type = :type
        """
        )
    else:
        query = f"""
            SELECT (coalesce((SELECT total_items FROM etl_checkpoints
                              WHERE source_name = :name AND (CAST(:type AS text) IS NULL OR source_type = :type)), 0)
                + coalesce((SELECT sum({gained("b")}) FROM etl_batches b JOIN etl_runs r USING (run_id)
                            WHERE b.source_name = :name AND NOT b.rolled_up
                              AND NOT ({OPEN_BATCH})
                              AND (CAST(:type AS text) IS NULL OR r.source_type = :type)), 0))::bigint
        """
    return int(connection.execute(text(query), {"type": source_type, "name": source_name}).scalar_one())


def source_health(connection: Connection, *, limit: int) -> list[Row[Any]]:
    """Declared and enabled sources, failing ones first."""
    query = (
        _ALL
        + f"""
        SELECT t.*, (SELECT status FROM etl_runs r WHERE r.source_name = t.source_name AND r.lane = 'fetch'
                     AND {ACTIVE_RUN}) AS active_status
        FROM totals t WHERE enabled
        ORDER BY set_aside DESC, (gone_reason IS NOT NULL) DESC, (last_status = 'failed') DESC NULLS LAST,
            (late_since IS NOT NULL) DESC, (size_flag IS NOT NULL) DESC,
            (last_status = 'partial') DESC NULLS LAST, source_name
        LIMIT :limit
        """
    )
    return list(connection.execute(text(query), {"limit": limit}))


def health_counts(connection: Connection) -> Row[Any]:
    """How many sources there are, and how many of those that are enabled ended well, in part or badly last time."""
    query = (
        _ALL
        + """
        SELECT count(*) AS total, count(*) FILTER (WHERE enabled AND last_status = 'success') AS successful,
            count(*) FILTER (WHERE enabled AND last_status = 'partial') AS partial,
            count(*) FILTER (WHERE enabled AND last_status = 'failed') AS failed,
            array_agg(source_name ORDER BY source_name) FILTER (WHERE enabled AND set_aside) AS set_aside,
            array_agg(source_name ORDER BY late_since) FILTER (WHERE enabled AND late_since IS NOT NULL) AS late,
            min(late_since) FILTER (WHERE enabled) AS late_since,
            array_agg(source_name ORDER BY source_name) FILTER (WHERE enabled AND size_flag = 'empty') AS empty,
            array_agg(source_name ORDER BY source_name) FILTER (WHERE enabled AND size_flag = 'odd_size') AS odd_size
        FROM totals
        """
    )
    return connection.execute(text(query)).one()
