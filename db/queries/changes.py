"""What has changed among the items, in an order in which a mirror misses nothing.

Transactions commit in another order than they began in. What is told is therefore bound by the horizon: before it all
transactions are over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from db.queries.item_paths import SHOWN
from db.queries.item_sizes import ESTIMATE
from db.queries.items import PAGE_BYTES
from db.queries.marks import CLUSTER, LIFE, NEXT, is_known
from db.statement import text
from etl.errors import MirrorResetError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.queries.marks import Mark

STEP = 5000


@dataclass(frozen=True)
class Position:
    """How far a mirror has come: the last change that it has, and whether it has all of that transaction.

    What was deleted before `begun` it never had, nor what was removed by transaction `floor` and those before.
    """

    cluster: str
    xid: int
    item_id: int
    is_whole: bool
    begun: int
    floor: int


@dataclass(frozen=True)
class Bookmark:
    """A position, and a mark that was written after all before it was read."""

    position: Position
    mark: str

    @classmethod
    def of(cls, position: Position, mark: Mark) -> Self:
        """A database that is restored to the mark gives the numbers of all transactions after it again."""
        return cls(replace(position, begun=min(position.begun, mark.next_xid)), mark.nonce)


@dataclass(frozen=True)
class Changes:
    """Changes in their order as JSON, where to go on, and how old the oldest is that cannot be told yet: s, or 0.

    `life` names the database that was read.
    """

    items: list[str]
    position: Position
    has_more: bool
    behind_seconds: float
    life: str


_HORIZON = "pg_snapshot_xmin(pg_current_snapshot())"
_BOUND = text(f"""
    SELECT {CLUSTER} AS cluster, {LIFE} AS life, {_HORIZON}::text AS horizon,
        coalesce((SELECT raised::text FROM mirror_floor), '0') AS floor,
        coalesce((
            SELECT greatest(extract(epoch FROM clock_timestamp() - updated_at), 0.001) FROM unified_items
            WHERE change_xid >= {_HORIZON} ORDER BY change_xid LIMIT 1), 0)::float8 AS behind
""")
_IS_BELOW_FLOOR = text(f"""
    SELECT EXISTS (
        SELECT 1 FROM mirror_floor
        WHERE cluster = {CLUSTER} AND raised IS DISTINCT FROM CAST(:floor AS xid8) AND xid >= CAST(:begun AS xid8)
          AND (xid > CAST(:xid AS xid8) OR xid = CAST(:xid AS xid8) AND NOT :is_whole))
""")
_PAGE = text(f"""
    WITH near AS MATERIALIZED (
        SELECT id, change_xid, 500 + {ESTIMATE} AS size
        FROM unified_items
        WHERE (change_xid, id) > (CAST(:xid AS xid8), :item_id) AND change_xid < CAST(:horizon AS xid8)
        ORDER BY change_xid, id LIMIT :limit + 1
    ), placed AS (
        SELECT id, change_xid, row_number() OVER places AS place, sum(size) OVER places - size AS before,
            lead(change_xid) OVER places IS DISTINCT FROM change_xid AS is_last
        FROM near
        WINDOW places AS (ORDER BY change_xid, id)
    )
    SELECT p.id, p.change_xid::text AS xid, p.is_last, (SELECT count(*) FROM near) AS found,
        (SELECT row_to_json(item)::text
         FROM (SELECT {SHOWN}, deleted_at FROM unified_items i WHERE i.id = p.id) item) AS shown
    FROM placed p WHERE place <= :limit AND before < {PAGE_BYTES} ORDER BY place
""")


def read_changes(connection: Connection, after: Bookmark | None, limit: int) -> Changes:
    """The changes after a bookmark, the oldest first; from the beginning without one.

    Raises:
        MirrorResetError: it belongs to another course of events, or is too old.
    """
    bound = connection.execute(_BOUND).one()
    start = after.position if after else Position(bound.cluster, 0, 0, True, int(bound.horizon), int(bound.floor))
    values = {"xid": str(start.xid), "item_id": start.item_id, "horizon": bound.horizon, "limit": limit}
    rows = connection.execute(_PAGE, values).all()
    # Afterwards: what is removed meanwhile may be missing from the page.
    if after is not None and not _may_go_on(connection, after, bound.cluster):
        raise MirrorResetError("the database was restored since, or this is too long ago; mirror all of it again")
    position = replace(start, xid=int(rows[-1].xid), item_id=rows[-1].id, is_whole=rows[-1].is_last) if rows else start
    has_more = bool(rows) and rows[0].found > len(rows)
    return Changes([row.shown for row in rows], position, has_more, bound.behind, bound.life)


def _may_go_on(connection: Connection, after: Bookmark, cluster: str) -> bool:
    if after.position.cluster != cluster or not is_known(connection, after.mark):
        return False
    place = after.position
    values = {"xid": str(place.xid), "is_whole": place.is_whole, "begun": str(place.begun), "floor": str(place.floor)}
    return not connection.execute(_IS_BELOW_FLOOR, values).scalar_one()


def raise_floor(connection: Connection, xid: str | None) -> None:
    """Items that changed up to this transaction are removed: who has not seen that change never will."""
    if xid is not None:
        query = text(f"""
            INSERT INTO mirror_floor AS f (one, xid, raised, cluster)
            VALUES (true, CAST(:xid AS xid8), pg_current_xact_id(), {CLUSTER})
            ON CONFLICT (one) DO UPDATE SET cluster = excluded.cluster, raised = excluded.raised,
                xid = CASE WHEN f.cluster = excluded.cluster AND f.xid < {NEXT} THEN greatest(f.xid, excluded.xid)
                    ELSE excluded.xid END
        """)
        connection.execute(query, {"xid": xid})


def renumber(connection: Connection) -> int:
    """Give some of the items whose change lies ahead of all transactions, as after a restore, one that is over soon.

    Returns:
        How many; none where nothing lies ahead.
    """
    query = text(f"""
        UPDATE unified_items SET change_xid = pg_current_xact_id()
        WHERE id = ANY (ARRAY(
            SELECT id FROM unified_items WHERE change_xid >= {NEXT}
            ORDER BY change_xid LIMIT :step FOR UPDATE SKIP LOCKED))
    """)
    return connection.execute(query, {"step": STEP}).rowcount
