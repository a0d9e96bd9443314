"""What keeps the database in shape: counters, partitions, retention, and who is alive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.statement import text
from db.states import JUDGED_RUN, OPEN_BATCH

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection

LIMIT = 1000
ROLL_UP_LOCK = 7236150420
# A process that was not seen for this long does not count as alive: seconds.
ALIVE_SECONDS = 30
# How many processes all workers have for tasks; null where none was seen.
PROCESSES = f"""(
    SELECT sum(processes) FROM etl_workers
    WHERE kind = 'worker' AND seen_at > clock_timestamp() - interval '{ALIVE_SECONDS} s')"""

_ROLL_UP_RUNS = text(f"""
    WITH ended AS (
        UPDATE etl_runs SET rolled_up = true
        WHERE run_id IN (
            SELECT run_id FROM etl_runs
            WHERE NOT rolled_up AND completed_at IS NOT NULL ORDER BY completed_at LIMIT :limit FOR UPDATE SKIP LOCKED)
        RETURNING source_name, coalesce(source_type, '') AS source_type, status, completed_at, records_extracted,
            extract(epoch FROM completed_at - started_at) AS seconds
    )
    INSERT INTO etl_checkpoints AS c (source_name, source_type, total_runs, total_success, total_partial, total_failed,
        total_extracted, total_seconds, last_success_at, last_failure_at, last_run_at, last_status)
    SELECT source_name, max(source_type), count(*), count(*) FILTER (WHERE status = 'success'),
        count(*) FILTER (WHERE status = 'partial'), count(*) FILTER (WHERE status = 'failed'),
        sum(records_extracted), coalesce(sum(seconds) FILTER (WHERE {JUDGED_RUN}), 0),
        max(completed_at) FILTER (WHERE status = 'success'), max(completed_at) FILTER (WHERE status = 'failed'),
        max(completed_at), (array_agg(status ORDER BY completed_at DESC) FILTER (WHERE status <> 'skipped'))[1]
    FROM ended WHERE source_type <> '' GROUP BY source_name ORDER BY source_name
    ON CONFLICT (source_name) DO UPDATE SET
        total_runs = c.total_runs + excluded.total_runs, total_success = c.total_success + excluded.total_success,
        total_partial = c.total_partial + excluded.total_partial, total_failed = c.total_failed + excluded.total_failed,
        total_extracted = c.total_extracted + excluded.total_extracted,
        total_seconds = c.total_seconds + excluded.total_seconds,
        last_success_at = greatest(c.last_success_at, excluded.last_success_at),
        last_failure_at = greatest(c.last_failure_at, excluded.last_failure_at),
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
        RETURNING run_id, source_name, records_inserted
    ), totals AS (
        SELECT ended.source_name, max(r.source_type) AS source_type, sum(ended.records_inserted) AS inserted
        FROM ended JOIN etl_runs r USING (run_id) GROUP BY ended.source_name
    )
    INSERT INTO etl_checkpoints AS c (source_name, source_type, total_items)
    SELECT source_name, source_type, inserted FROM totals WHERE inserted > 0 ORDER BY source_name
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


def purge_runs(connection: Connection, retention: timedelta) -> int:
    """Delete runs that ended long ago and are rolled up; with their batches and events."""
    query = text("""
        DELETE FROM etl_runs WHERE run_id IN (
            SELECT run_id FROM etl_runs r
            WHERE rolled_up AND created_at < clock_timestamp() - make_interval(secs => :seconds)
              AND NOT EXISTS (SELECT 1 FROM etl_batches b WHERE b.run_id = r.run_id AND NOT b.rolled_up)
            ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED)
    """)
    return connection.execute(query, {"seconds": retention.total_seconds(), "limit": LIMIT}).rowcount


def add_partitions(connection: Connection) -> list[str]:
    """Make the partitions of raw_data for this month and the next two."""
    wanted = text("""
        SELECT 'raw_data_' || to_char(m, 'YYYY_MM') AS name, (m AT TIME ZONE 'UTC')::text AS first,
            ((m + interval '1 month') AT TIME ZONE 'UTC')::text AS last
        FROM generate_series(date_trunc('month', now() AT TIME ZONE 'UTC'),
                             date_trunc('month', now() AT TIME ZONE 'UTC') + interval '2 months', interval '1 month') m
        WHERE to_regclass('raw_data_' || to_char(m, 'YYYY_MM')) IS NULL
          -- a month that has begun in the default partition stays there
          AND NOT EXISTS (SELECT 1 FROM raw_data_default d WHERE d.ingested_at >= m AT TIME ZONE 'UTC'
                          AND d.ingested_at < (m + interval '1 month') AT TIME ZONE 'UTC')
    """)
    rows = connection.execute(wanted).all()
    for row in rows:
        # IF NOT EXISTS, because several sweepers may have looked at once. The values come from the query above.
        connection.exec_driver_sql(
            f"CREATE TABLE IF NOT EXISTS {row.name} PARTITION OF raw_data "
            f"FOR VALUES FROM ('{row.first}') TO ('{row.last}')"
        )
    return [row.name for row in rows]


def beat_heart(connection: Connection, name: str, kind: str, processes: int) -> None:
    """Note that a process is alive, and how many it has for tasks; forget those not seen for a day."""
    query = text("""
        INSERT INTO etl_workers (name, kind, processes) VALUES (:name, :kind, :processes)
        ON CONFLICT (name) DO UPDATE SET seen_at = clock_timestamp(), processes = excluded.processes
    """)
    connection.execute(query, {"name": name, "kind": kind, "processes": processes})
    connection.execute(text("DELETE FROM etl_workers WHERE seen_at < clock_timestamp() - interval '1 day'"))


def stop_heart(connection: Connection, name: str) -> None:
    """A process that ends in order is gone at once."""
    connection.execute(text("DELETE FROM etl_workers WHERE name = :name"), {"name": name})


def count_alive(connection: Connection, kind: str) -> int:
    """How many processes of a kind were seen lately."""
    query = text("""
        SELECT count(*) FROM etl_workers
        WHERE kind = :kind AND seen_at > clock_timestamp() - make_interval(secs => :seconds)
    """)
    return int(connection.execute(query, {"kind": kind, "seconds": ALIVE_SECONDS}).scalar_one())


def is_alive(connection: Connection, prefix: str) -> bool:
    """Whether a process whose name starts so was seen lately."""
    query = text("""
        SELECT EXISTS (SELECT 1 FROM etl_workers WHERE starts_with(name, :prefix)
                       AND seen_at > clock_timestamp() - make_interval(secs => :seconds))
    """)
    return bool(connection.execute(query, {"prefix": prefix, "seconds": ALIVE_SECONDS}).scalar_one())


def ping(connection: Connection) -> None:
    """Ask for an answer, nothing more."""
    connection.execute(text("SELECT 1"))
