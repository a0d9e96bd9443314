"""Marks: rows by which it is known whether the database still has all that a mirror has read.

A mark is written after a reading, in the database that was read, and says which transactions could be seen then. One
in which it is found again, by its random number, has all that was read, and all that was newer and passed over; one
that was restored to a point before has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from db.queries.old_rows import delete_old
from db.statement import text
from etl.errors import StorageUnavailableError

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Marks are written one after the other, so that one serves all who wait.
LOCK = 7236150433

# Transactions are numbered by their cluster: what a restore has brought from another says nothing of those here.
CLUSTER = "(SELECT system_identifier::text FROM pg_control_system())"
NEXT = "pg_snapshot_xmax(pg_current_snapshot())"
# Written in another cluster, or in a later life of this one: a copy of its files has the same name.
_IS_FOREIGN = f"(m.cluster IS DISTINCT FROM {CLUSTER} OR coalesce(pg_snapshot_xmax(m.seen) > {NEXT}, false))"
_NEWEST = "SELECT * FROM mirror_marks ORDER BY mark_id DESC LIMIT 1"
# What becomes another when a server is started anew, or takes over, and when the tables are restored under it.
LIFE = """concat_ws(' ', pg_postmaster_start_time(), (SELECT oid FROM pg_database WHERE datname = current_database()),
    pg_relation_filenode('unified_items'), pg_relation_filenode('mirror_marks'))"""
# Whether a change can be seen that could not be when the mark was written: by the last one, by those of transactions
# that were open then, and by the last removal. Asked for the first from there on, as whether one exists, PostgreSQL
# does not read the whole table when there is none. What lies ahead of all transactions is renumbered before it is told.
_FIND = text(f"""
    SELECT m.nonce::text AS nonce, pg_snapshot_xmax(m.seen)::text AS next FROM ({_NEWEST}) m
    WHERE m.seen IS NOT NULL AND NOT {_IS_FOREIGN} AND m.at > clock_timestamp() - make_interval(secs => :lasts)
      AND :life = {LIFE}
      AND NOT coalesce((
        SELECT change_xid FROM unified_items WHERE change_xid < {NEXT}
        ORDER BY change_xid DESC LIMIT 1) >= pg_snapshot_xmax(m.seen), false)
      AND NOT EXISTS (
        SELECT 1 FROM pg_snapshot_xip(m.seen) AS was_open (xid) WHERE xid = (
            SELECT change_xid FROM unified_items WHERE change_xid >= was_open.xid ORDER BY change_xid LIMIT 1))
      AND NOT EXISTS (
        SELECT 1 FROM mirror_floor WHERE raised < {NEXT} AND NOT pg_visible_in_snapshot(raised, m.seen))
""")
# The release before asks for the horizon.
_SET = text(f"""
    INSERT INTO mirror_marks (nonce, seen, horizon, cluster)
    SELECT gen_random_uuid(), pg_current_snapshot(), pg_snapshot_xmin(pg_current_snapshot()), {CLUSTER}
    WHERE :life = {LIFE}
    RETURNING nonce::text AS nonce, pg_snapshot_xmax(seen)::text AS next
""")
_FORGET = text(f"""
    DELETE FROM mirror_marks m WHERE {_IS_FOREIGN} AND (SELECT {_IS_FOREIGN} FROM ({_NEWEST}) m)
""")
_FORGET_FLOOR = text(f"DELETE FROM mirror_floor WHERE cluster IS DISTINCT FROM {CLUSTER} OR xid >= {NEXT}")
_IS_KNOWN = text(f"""
    SELECT EXISTS (SELECT 1 FROM mirror_marks m WHERE m.nonce = CAST(:mark AS uuid) AND NOT {_IS_FOREIGN})
""")


@dataclass(frozen=True)
class Mark:
    """A random number, and the next transaction after those that could be seen."""

    nonce: str
    next_xid: int


def lifetime(retention: timedelta) -> timedelta:
    """After so long a mark is renewed though nothing changes, so that who asks now and then has one that is kept."""
    return min(timedelta(days=1), retention / 4)


def find_mark(connection: Connection, life: str, retention: timedelta) -> Mark | None:
    """The newest mark, if it was written after all changes that can be seen, and this is what was read."""
    values = {"lasts": lifetime(retention).total_seconds(), "life": life}
    found = connection.execute(_FIND, values).one_or_none()
    return Mark(found.nonce, int(found.next)) if found else None


def set_mark(connection: Connection, life: str, retention: timedelta) -> Mark:
    """A mark that was written after all changes that can be seen; to be handed out once this is committed.

    Raises:
        StorageUnavailableError: this is not any more what was read.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    found = find_mark(connection, life, retention)
    if found is not None:
        return found
    forget_foreign(connection)
    written = connection.execute(_SET, {"life": life}).one_or_none()
    if written is None:
        raise StorageUnavailableError("the database was started anew or restored while it was read")
    return Mark(written.nonce, int(written.next))


def is_known(connection: Connection, mark: str) -> bool:
    """Whether the database has all that was read before this mark was handed out."""
    return bool(connection.execute(_IS_KNOWN, {"mark": mark}).scalar_one())


def forget_foreign(connection: Connection) -> None:
    """Remove what a restore has brought of the marks and the floor of another cluster: it may come back to that one."""
    connection.execute(_FORGET)
    connection.execute(_FORGET_FLOOR)


def purge_marks(connection: Connection, retention: timedelta, limit: int) -> int:
    """Remove some of the marks under which nobody may go on any more; how many."""
    return delete_old(connection, "mirror_marks", "mark_id", "at", retention + lifetime(retention), limit)
