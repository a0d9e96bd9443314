"""What the service consists of: its processes, its tables and how they grow, and what it keeps for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.queries.processes import ALIVE_SECONDS
from db.statement import text
from db.states import ACTIVE_RUN, OPEN_BATCH

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

KEPT_SIZES = "90 days"

_PROCESSES = text(f"""
    SELECT name, kind, processes, started_at, seen_at, reader, protocol,
        seen_at > clock_timestamp() - interval '{ALIVE_SECONDS} s' AS alive
    FROM etl_workers ORDER BY kind, name LIMIT 200
""")
# Partitions count to their table.
_SIZES = """
    SELECT coalesce(p.relname, c.relname)::text AS name, sum(pg_total_relation_size(c.oid))::bigint AS bytes,
        sum(greatest(c.reltuples, 0))::bigint AS rows
    FROM pg_class c
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    LEFT JOIN pg_class p ON p.oid = i.inhparent
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
    GROUP BY 1
"""
_TABLES = text(f"""
    SELECT now.name, now.bytes, now.rows AS estimated_rows,
        CASE WHEN before.at IS NOT NULL THEN
            ((now.bytes - before.bytes)
                / greatest(extract(epoch FROM clock_timestamp() - before.at) / 86400, 0.01))::bigint
        END AS bytes_a_day
    FROM ({_SIZES}) now
    LEFT JOIN LATERAL (
        SELECT s.bytes, s.at FROM etl_sizes s WHERE s.name = now.name AND s.at > clock_timestamp() - interval '8 days'
        ORDER BY s.at LIMIT 1) before ON true
    ORDER BY now.bytes DESC
""")
_NOTE_SIZES = text(f"INSERT INTO etl_sizes (name, bytes) SELECT name, bytes FROM ({_SIZES}) sizes")
_FORGET_SIZES = text(f"DELETE FROM etl_sizes WHERE at < clock_timestamp() - interval '{KEPT_SIZES}'")
_FORGET_HOURS = text(f"DELETE FROM etl_hours WHERE hour < clock_timestamp() - interval '{KEPT_SIZES}'")
_QUEUES = text(f"""
    SELECT
        (SELECT min(dispatched_at) FROM etl_runs
         WHERE {ACTIVE_RUN} AND claimed_at IS NULL AND lane = 'fetch') AS extract,
        (SELECT min(dispatched_at) FROM etl_batches WHERE {OPEN_BATCH} AND claimed_at IS NULL AND NOT low) AS load,
        least((SELECT min(dispatched_at) FROM etl_runs WHERE {ACTIVE_RUN} AND claimed_at IS NULL AND lane <> 'fetch'),
              (SELECT min(dispatched_at) FROM etl_batches WHERE {OPEN_BATCH} AND claimed_at IS NULL AND low)) AS low
""")
_CONNECTIONS = text("""
    SELECT coalesce(nullif(regexp_replace(application_name, '-[0-9]+$', ''), ''), 'other') AS name, count(*) AS open,
        -- of other roles' connections a role like the web's is not told what they do
        CASE WHEN bool_and(state IS NOT NULL) THEN count(*) FILTER (WHERE state = 'active') END AS active
    FROM pg_stat_activity
    WHERE datname = current_database() AND usesysid IS NOT NULL
      AND coalesce(backend_type, 'client backend') = 'client backend'
    GROUP BY 1 ORDER BY 1 LIMIT 50
""")
_VERSIONS = text("""
    SELECT current_setting('server_version') AS postgresql, (SELECT max(version_num) FROM alembic_version) AS migration,
        pg_database_size(current_database()) AS database_bytes
""")


def list_processes(connection: Connection) -> list[Row[Any]]:
    """The workers and beats that were seen within a day."""
    return list(connection.execute(_PROCESSES))


def list_tables(connection: Connection) -> list[Row[Any]]:
    """The tables by size, each with how much it grew a day in the last week; null where that is not known yet."""
    return list(connection.execute(_TABLES))


def oldest_messages(connection: Connection) -> dict[str, Any]:
    """Since when the oldest message of each queue waits."""
    return connection.execute(_QUEUES).one()._asdict()


def list_connections(connection: Connection) -> list[Row[Any]]:
    """The connections to the database, by whose they are."""
    return list(connection.execute(_CONNECTIONS))


def versions(connection: Connection) -> Row[Any]:
    """What PostgreSQL and the schema are, and how large all is."""
    return connection.execute(_VERSIONS).one()


def note_sizes(connection: Connection) -> None:
    """Note how large the tables are, unless that was done within the hour; forget what is old."""
    query = text("SELECT EXISTS (SELECT 1 FROM etl_sizes WHERE at > clock_timestamp() - interval '1 hour')")
    if not connection.execute(query).scalar_one():
        connection.execute(_NOTE_SIZES)
        connection.execute(_FORGET_SIZES)
        connection.execute(_FORGET_HOURS)
