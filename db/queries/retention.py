"""What keeps raw records in the partitions of their months, and removes what is old."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.statement import text

if TYPE_CHECKING:
    from datetime import timedelta

    from sqlalchemy import Connection

PURGE_LOCK = 7236150423

_OLD = text("""
    SELECT run_id FROM etl_runs r
    WHERE rolled_up AND created_at < clock_timestamp() - make_interval(secs => :seconds)
      -- asked run by run; as a join it would look through all batches
      AND coalesce((SELECT bool_and(b.rolled_up) FROM etl_batches b WHERE b.run_id = r.run_id), true)
    ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED
""")


def purge_runs(connection: Connection, retention: timedelta, limit: int) -> int:
    """Delete some of the runs that ended long ago and are rolled up; with their batches and events.

    Returns:
        How many; none also while another purges.
    """
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": PURGE_LOCK}).scalar_one():
        return 0
    # Whatever the planner believes of the tables: to read one whole for a thousand rows costs ten times as much.
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    values = {"seconds": retention.total_seconds(), "limit": limit}
    old = {"ids": list(connection.execute(_OLD, values).scalars())}
    # Batches and events go first and by sets: left to the foreign keys, they would be deleted run by run.
    for table in ("etl_requests", "etl_run_events", "etl_batches", "etl_runs"):
        connection.execute(text(f"DELETE FROM {table} WHERE run_id = ANY (:ids)"), old)
    return len(old["ids"])


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
