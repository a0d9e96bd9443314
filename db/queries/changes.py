"""What has changed among the items, in an order in which a mirror misses nothing.

Transactions commit in another order than they began in. What is read is therefore bound by a mark: a row that says up
to which transaction all had ended when it was written. Whatever the mark covers was committed before it, so that a
database in which the mark is found again, by its random number, has all that was read under it; one that was restored
to a point before has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from db.queries.item_paths import SHOWN
from db.queries.item_sizes import ESTIMATE
from db.queries.items import PAGE_BYTES
from db.queries.old_rows import delete_old
from db.statement import text
from etl.errors import MirrorResetError

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Marks are written one after the other, so that the newest covers most.
MARKS_LOCK = 7236150433
STEP = 5000


@dataclass(frozen=True)
class Position:
    """How far a mirror has come: the last change that it has, and the mark under which it read that.

    What was removed before `begun` it never had.
    """

    cluster: str
    mark: str
    xid: int
    item_id: int
    begun: int


@dataclass(frozen=True)
class Changes:
    """Changes in their order as JSON, where to go on, and how old the oldest is that cannot be told yet: s, or 0."""

    items: list[str]
    position: Position
    has_more: bool
    behind_seconds: float


# Transactions are numbered by their cluster: what a restore has brought from another says nothing of those here.
_CLUSTER = "(SELECT system_identifier::text FROM pg_control_system())"
_NEWEST = f"SELECT * FROM mirror_marks WHERE cluster = {_CLUSTER} ORDER BY mark_id DESC LIMIT 1"
# Whether there are changes that can be seen, and that a mark does not cover: by the last one. Asked whether one exists,
# PostgreSQL expects very many, and reads the whole table when there is none. No mark covers what lies ahead of all
# transactions; it is renumbered first.
_OPEN = """coalesce((
    SELECT change_xid FROM unified_items WHERE change_xid < pg_snapshot_xmax(pg_current_snapshot())
    ORDER BY change_xid DESC LIMIT 1) >= m.horizon, false)"""
_MARK = text(f"""
    INSERT INTO mirror_marks (nonce, horizon, cluster)
    SELECT gen_random_uuid(), pg_snapshot_xmin(pg_current_snapshot()), {_CLUSTER}
    WHERE NOT EXISTS (
        SELECT 1 FROM ({_NEWEST}) m
        WHERE m.at > clock_timestamp() - make_interval(secs => :lasts)
            AND (NOT {_OPEN} OR m.horizon >= pg_snapshot_xmin(pg_current_snapshot())))
""")
_COVERED = text(f"""
    SELECT nonce::text AS nonce, horizon::text AS horizon, cluster,
        coalesce((
            SELECT greatest(extract(epoch FROM clock_timestamp() - updated_at), 0.001) FROM unified_items
            WHERE change_xid >= m.horizon ORDER BY change_xid LIMIT 1), 0)::float8 AS behind
    FROM ({_NEWEST}) m
""")
_IS_KNOWN = text(f"""
    SELECT EXISTS (SELECT 1 FROM mirror_marks WHERE nonce = CAST(:mark AS uuid))
        AND NOT EXISTS (
            SELECT 1 FROM mirror_floor
            WHERE xid > CAST(:xid AS xid8) AND xid >= CAST(:begun AS xid8) AND cluster = {_CLUSTER})
""")
_PAGE = text(f"""
    WITH near AS MATERIALIZED (
        SELECT id, change_xid,
            500 + {ESTIMATE} AS size
        FROM unified_items
        WHERE (change_xid, id) > (CAST(:xid AS xid8), :item_id) AND change_xid < CAST(:horizon AS xid8)
        ORDER BY change_xid, id LIMIT :limit + 1
    ), placed AS (
        SELECT id, change_xid, row_number() OVER places AS place, sum(size) OVER places - size AS before FROM near
        WINDOW places AS (ORDER BY change_xid, id)
    )
    SELECT p.id, p.change_xid::text AS xid, (SELECT count(*) FROM near) AS found,
        (SELECT row_to_json(item)::text
         FROM (SELECT {SHOWN}, deleted_at FROM unified_items i WHERE i.id = p.id) item) AS shown
    FROM placed p WHERE place <= :limit AND before < {PAGE_BYTES} ORDER BY place
""")


def marks_last(retention: timedelta) -> timedelta:
    """After so long a mark is renewed though nothing changes, so that who asks now and then has one that is kept."""
    return min(timedelta(days=1), retention / 4)


def set_mark(connection: Connection, retention: timedelta) -> None:
    """Write a mark, if it covers what none does, or the last one is old: in a transaction of its own, before a reading.

    What was committed before is then told, unless a transaction is open that has written something before that.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MARKS_LOCK})
    connection.execute(_MARK, {"lasts": marks_last(retention).total_seconds()})


def read_changes(connection: Connection, after: Position | None, limit: int) -> Changes:
    """The changes after a position, the oldest first; from the beginning without one.

    Raises:
        MirrorResetError: the position belongs to another course of events, or is too old.
    """
    mark = connection.execute(_COVERED).one()
    start = after or Position(mark.cluster, mark.nonce, 0, 0, int(mark.horizon))
    values = {"xid": str(start.xid), "item_id": start.item_id, "horizon": mark.horizon, "limit": limit}
    rows = connection.execute(_PAGE, values).all()
    # Afterwards: what is removed meanwhile may be missing from the page.
    if after is not None:
        _check(connection, after, mark.cluster)
    last = (int(rows[-1].xid), rows[-1].id) if rows else (start.xid, start.item_id)
    position = Position(mark.cluster, mark.nonce, last[0], last[1], start.begun)
    return Changes([row.shown for row in rows], position, bool(rows) and rows[0].found > len(rows), mark.behind)


def _check(connection: Connection, after: Position, cluster: str) -> None:
    known = {"mark": after.mark, "xid": str(after.xid), "begun": str(after.begun)}
    if after.cluster == cluster and connection.execute(_IS_KNOWN, known).scalar_one():
        return
    raise MirrorResetError("the database was restored since, or this is too long ago; mirror all of it again")


def raise_floor(connection: Connection, xid: str | None) -> None:
    """Items that changed up to this transaction are removed: who has not seen that change never will."""
    if xid is not None:
        query = text(f"""
            INSERT INTO mirror_floor AS f (one, xid, cluster)
            VALUES (true, CAST(:xid AS xid8), {_CLUSTER})
            ON CONFLICT (one) DO UPDATE SET cluster = excluded.cluster,
                xid = CASE WHEN f.cluster = excluded.cluster THEN greatest(f.xid, excluded.xid) ELSE excluded.xid END
        """)
        connection.execute(query, {"xid": xid})


def renumber(connection: Connection) -> int:
    """Give some of the items whose change lies ahead of all transactions, as after a restore, one that is over soon.

    Returns:
        How many; none where nothing lies ahead.
    """
    query = text("""
        UPDATE unified_items SET change_xid = pg_current_xact_id()
        WHERE id = ANY (ARRAY(
            SELECT id FROM unified_items WHERE change_xid >= pg_snapshot_xmax(pg_current_snapshot())
            ORDER BY change_xid LIMIT :step FOR UPDATE SKIP LOCKED))
    """)
    return connection.execute(query, {"step": STEP}).rowcount


def purge_marks(connection: Connection, retention: timedelta, limit: int) -> int:
    """Remove some of the marks under which nobody may go on any more; how many."""
    return delete_old(connection, "mirror_marks", "mark_id", "at", retention + marks_last(retention), limit)
