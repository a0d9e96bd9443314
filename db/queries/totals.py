"""What ended, added to the totals of its source, and of the type of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.counters import ADDED, OUTCOMES
from db.statement import text
from db.states import JUDGED_RUN, OPEN_BATCH, gained

if TYPE_CHECKING:
    from sqlalchemy import Connection

# How much is added at once.
LIMIT = 1000
ROLL_UP_LOCK = 7236150420

_ROLL_UP_RUNS = text(f"""
    WITH ended AS (
        UPDATE etl_runs SET rolled_up = true
        WHERE run_id IN (
            SELECT run_id FROM etl_runs
            WHERE NOT rolled_up AND completed_at IS NOT NULL ORDER BY completed_at LIMIT :limit FOR UPDATE SKIP LOCKED)
        RETURNING source_name, lane, coalesce(source_type, '') AS source_type, status, completed_at,
            created_at, {", ".join(f"records_{outcome}" for outcome in OUTCOMES)},
            extract(epoch FROM completed_at - started_at) AS seconds
    ), told AS (
        -- Those of a source that was deleted say nothing of the one that has its name now.
        SELECT e.*, coalesce(e.created_at >= s.created_at, false) AS own
        FROM ended e LEFT JOIN sources s ON s.name = e.source_name
    ), counters AS (
        INSERT INTO etl_counters AS n (name, label, value)
        SELECT name, label, value FROM ({ADDED.format(ended="ended")}) added ORDER BY name, label
        ON CONFLICT (name, label) DO UPDATE SET value = n.value + excluded.value
    ), hours AS (
        INSERT INTO etl_hours AS h (hour, status, runs)
        SELECT date_trunc('hour', completed_at, 'UTC'), status, count(*) FROM ended WHERE lane = 'fetch' GROUP BY 1, 2
        ORDER BY 1, 2
        ON CONFLICT (hour, status) DO UPDATE SET runs = h.runs + excluded.runs
    )
    INSERT INTO etl_checkpoints AS c (source_name, source_type, total_runs, total_success, total_partial, total_failed,
        total_extracted, total_seconds, last_success_at, last_failure_at, last_read_at, last_run_at, last_status)
    SELECT source_name, max(source_type), count(*), count(*) FILTER (WHERE status = 'success'),
        count(*) FILTER (WHERE status = 'partial'), count(*) FILTER (WHERE status = 'failed'),
        sum(records_extracted), coalesce(sum(seconds) FILTER (WHERE {JUDGED_RUN}), 0),
        max(completed_at) FILTER (WHERE own AND status = 'success'),
        max(completed_at) FILTER (WHERE own AND status = 'failed'),
        max(completed_at) FILTER (WHERE own AND status IN ('success', 'partial')), max(completed_at) FILTER (WHERE own),
        (array_agg(status ORDER BY completed_at DESC) FILTER (WHERE own AND status <> 'skipped'))[1]
    FROM told WHERE source_type <> '' AND lane = 'fetch' GROUP BY source_name ORDER BY source_name
    ON CONFLICT (source_name) DO UPDATE SET
        total_runs = c.total_runs + excluded.total_runs, total_success = c.total_success + excluded.total_success,
        total_partial = c.total_partial + excluded.total_partial, total_failed = c.total_failed + excluded.total_failed,
        total_extracted = c.total_extracted + excluded.total_extracted,
        total_seconds = c.total_seconds + excluded.total_seconds,
        last_success_at = greatest(c.last_success_at, excluded.last_success_at),
        last_failure_at = greatest(c.last_failure_at, excluded.last_failure_at),
        last_read_at = greatest(c.last_read_at, excluded.last_read_at),
        last_status = CASE WHEN c.last_run_at > excluded.last_run_at THEN c.last_status
            ELSE coalesce(excluded.last_status, c.last_status) END,
        last_run_at = greatest(c.last_run_at, excluded.last_run_at), updated_at = clock_timestamp()
""")

_ROLL_UP_BATCHES = text(f"""
    WITH ended AS (
        UPDATE etl_batches SET rolled_up = true
        WHERE batch_id IN (
            SELECT batch_id FROM etl_batches
            WHERE NOT rolled_up AND NOT ({OPEN_BATCH})
            ORDER BY batch_id LIMIT :limit FOR UPDATE SKIP LOCKED)
        RETURNING run_id, source_name, {gained("etl_batches")} AS gained
    ), totals AS (
        SELECT ended.source_name, max(r.source_type) AS source_type, sum(ended.gained) AS gained
        FROM ended JOIN etl_runs r USING (run_id) GROUP BY ended.source_name
    )
    INSERT INTO etl_checkpoints AS c (source_name, source_type, total_items)
    SELECT source_name, source_type, gained FROM totals WHERE gained <> 0 ORDER BY source_name
    ON CONFLICT (source_name) DO UPDATE SET total_items = c.total_items + excluded.total_items
""")


# Made anew each time, so that no mistake and no older version of this code can leave them wrong for good.
_TOTAL = text("""
    INSERT INTO etl_totals AS t (source_type, items, judged, seconds, last_success_at, last_failure_at)
    SELECT source_type, sum(total_items), sum(total_success + total_partial + total_failed), sum(total_seconds),
        max(last_success_at), max(last_failure_at)
    FROM etl_checkpoints GROUP BY source_type
    ON CONFLICT (source_type) DO UPDATE SET items = excluded.items, judged = excluded.judged,
        seconds = excluded.seconds, last_success_at = excluded.last_success_at,
        last_failure_at = excluded.last_failure_at
    WHERE (t.items, t.judged, t.seconds) IS DISTINCT FROM (excluded.items, excluded.judged, excluded.seconds)
""")


def roll_up(connection: Connection) -> None:
    """Add what ended to the totals of its source, and those to the totals of its type. One does it at a time."""
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": ROLL_UP_LOCK}).scalar_one():
        return
    runs = connection.execute(_ROLL_UP_RUNS, {"limit": LIMIT})
    batches = connection.execute(_ROLL_UP_BATCHES, {"limit": LIMIT})
    if runs.rowcount or batches.rowcount:
        connection.execute(_TOTAL)


def recount(connection: Connection) -> None:
    """Make the totals of the types anew, whatever they say."""
    connection.execute(_TOTAL)
