"""Who is alive: the processes that show themselves in the database, and the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.statement import text
from etl.mapping.reader import READER
from etl.runs.protocol import PROTOCOL

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

# A process that was not seen for this long does not count as alive: seconds.
ALIVE_SECONDS = 30
# How many processes all workers have for tasks; null where none was seen.
PROCESSES = f"""(
    SELECT sum(processes) FROM etl_workers
    WHERE kind = 'worker' AND seen_at > clock_timestamp() - interval '{ALIVE_SECONDS} s')"""


def beat_heart(connection: Connection, name: str, kind: str, processes: int) -> None:
    """Note that a process is alive, and how many it has for tasks; forget those not seen for a day."""
    query = text("""
        INSERT INTO etl_workers (name, kind, processes, reader, protocol)
        VALUES (:name, :kind, :processes, :reader, :protocol)
        ON CONFLICT (name) DO UPDATE SET seen_at = clock_timestamp(), processes = excluded.processes,
            reader = excluded.reader, protocol = excluded.protocol
    """)
    values = {"name": name, "kind": kind, "processes": processes, "reader": READER, "protocol": PROTOCOL}
    connection.execute(query, values)
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


def are_of_one_release(connection: Connection) -> bool:
    """Whether all that are alive read as this release does, and have its protocol."""
    query = text("""
        SELECT NOT EXISTS (SELECT 1 FROM etl_workers
                           WHERE (reader IS DISTINCT FROM :reader OR protocol IS DISTINCT FROM :protocol)
                           AND seen_at > clock_timestamp() - make_interval(secs => :seconds))
    """)
    return bool(
        connection.execute(query, {"reader": READER, "protocol": PROTOCOL, "seconds": ALIVE_SECONDS}).scalar_one()
    )


def last_seen(connection: Connection, kind: str) -> datetime | None:
    """When a process of a kind was seen last, within a day."""
    query = text("SELECT max(seen_at) FROM etl_workers WHERE kind = :kind")
    seen: datetime | None = connection.execute(query, {"kind": kind}).scalar()
    return seen


def is_alive(connection: Connection, prefix: str) -> bool:
    """Whether a process whose name starts so was seen lately."""
    query = text("""
        SELECT EXISTS (SELECT 1 FROM etl_workers WHERE starts_with(name, :prefix)
                       AND seen_at > clock_timestamp() - make_interval(secs => :seconds))
    """)
    return bool(connection.execute(query, {"prefix": prefix, "seconds": ALIVE_SECONDS}).scalar_one())


def hosts_alive(connection: Connection) -> set[str]:
    """The machines on which a process was seen within the last minutes."""
    query = text("""
        SELECT DISTINCT split_part(split_part(name, '@', 2), ':', 1) FROM etl_workers
        WHERE seen_at > clock_timestamp() - interval '5 minutes'
    """)
    return set(connection.execute(query).scalars())


def ping(connection: Connection) -> None:
    """Ask for an answer, nothing more."""
    connection.execute(text("SELECT 1"))
