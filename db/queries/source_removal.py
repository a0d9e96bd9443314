"""Sources deleted: their runs end, their checkpoint is forgotten, and their items go if that is asked for.

The name stays in the record of versions, which go on counting if it is given to another source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.queries.changes import raise_floor
from db.queries.closing import end_run
from db.queries.declaring import lock_declaring
from db.queries.marks import NEXT
from db.queries.run_locks import lock_run
from db.queries.totals import recount
from db.statement import text
from db.states import ACTIVE_RUN
from etl.runs.outcome import Failure, Outcome, Status

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy import Connection

DELETED = Outcome(Status.CANCELLED, Failure("source_deleted", "its source was deleted"))
# Items in one step.
STEP = 5000


def delete_source(connection: Connection, name: str, *, with_items: bool) -> list[UUID]:
    """Delete a source; the runs that were cancelled.

    Runs come first, as for whoever ends them; one that is queued just now finds no source, and is ended by a sweeper.
    """
    lock_declaring(connection)
    query = text(f"SELECT run_id FROM etl_runs WHERE source_name = :name AND {ACTIVE_RUN} ORDER BY run_id")
    active = list(connection.execute(query, {"name": name}).scalars())
    cancelled = [run_id for run_id in active if end_run(connection, run_id, DELETED)]
    for statement in (_FORGET_CHECKPOINT, _FORGET_FIELDS, _DELETE):
        connection.execute(statement, {"name": name})
    if with_items:
        connection.execute(_ASK, {"name": name})
    return cancelled


# The totals stay: they count the items that there are.
_FORGET_CHECKPOINT = text("""
    UPDATE etl_checkpoints SET kind = NULL, value = NULL, run_id = NULL, last_success_at = NULL, last_failure_at = NULL,
        last_run_at = NULL, last_status = NULL, last_read_at = NULL, sizes = NULL, size_flag = NULL,
        version = version + 1, updated_at = clock_timestamp()
    WHERE source_name = :name
""")
_FORGET_FIELDS = text("DELETE FROM source_fields WHERE source_name = :name")
_DELETE = text("DELETE FROM sources WHERE name = :name")
_ASK = text("""
    INSERT INTO source_removals AS r (source_name) VALUES (:name)
    ON CONFLICT (source_name) DO UPDATE SET asked_at = clock_timestamp(), emptied_at = NULL, after = ''
""")


def orphaned_runs(connection: Connection) -> list[UUID]:
    """Active runs whose source was deleted just when they were queued."""
    query = text(f"""
        SELECT run_id FROM etl_runs r
        WHERE {ACTIVE_RUN} AND NOT EXISTS (SELECT 1 FROM sources s WHERE s.name = r.source_name)
        ORDER BY run_id LIMIT 100
    """)
    return list(connection.execute(query).scalars())


def end_orphan(connection: Connection, run_id: UUID) -> bool:
    """End one of them; False when it is none any more."""
    lock_run(connection, run_id)
    query = text("SELECT 1 FROM etl_runs r JOIN sources s ON s.name = r.source_name WHERE r.run_id = :run_id")
    if connection.execute(query, {"run_id": run_id}).first():
        return False
    # What it has loaded behind the removal goes too.
    connection.execute(_AGAIN, {"run_id": run_id})
    return end_run(connection, run_id, DELETED)


_AGAIN = text("""
    UPDATE source_removals SET emptied_at = NULL, after = ''
    WHERE source_name = (SELECT source_name FROM etl_runs WHERE run_id = :run_id)
""")
_NEXT = text(f"""
    SELECT source_name, after FROM source_removals s WHERE emptied_at IS NULL
      -- one that was queued just then may still load
      AND NOT EXISTS (SELECT 1 FROM etl_runs r WHERE r.source_name = s.source_name AND r.{ACTIVE_RUN})
    ORDER BY asked_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")
# In the order of the keys, as loads lock them; nobody loads any more but for a run that ends now.
_EMPTY = text("""
    WITH step AS MATERIALIZED (
        SELECT id, external_id, status FROM unified_items WHERE source_name = :name AND external_id > :after
        ORDER BY external_id LIMIT :step FOR UPDATE
    ), gone AS (
        UPDATE unified_items SET status = 'deleted', deleted_at = clock_timestamp(), updated_at = clock_timestamp(),
            change_xid = pg_current_xact_id()
        WHERE id = ANY (ARRAY(SELECT id FROM step WHERE status = 'active')) RETURNING 1
    )
    SELECT (SELECT count(*) FROM step) AS seen, (SELECT count(*) FROM gone) AS gone,
        (SELECT max(external_id) FROM step) AS last
""")
_ADVANCE = text("""
    UPDATE source_removals SET after = coalesce(CAST(:last AS text), after),
        emptied_at = CASE WHEN :over THEN clock_timestamp() END
    WHERE source_name = :name
""")
# What its runs added may not be in the totals yet.
_UNCOUNT = text("""
    INSERT INTO etl_checkpoints AS c (source_name, source_type, total_items)
    SELECT source_name, document ->> 'type', -CAST(:gone AS bigint) FROM source_versions
    WHERE source_name = :name ORDER BY version DESC LIMIT 1
    ON CONFLICT (source_name) DO UPDATE SET total_items = c.total_items + excluded.total_items
""")


def empty_some(connection: Connection) -> bool:
    """Mark some items of a deleted source as deleted; whether there may be more to do."""
    removal = connection.execute(_NEXT).first()
    if removal is None:
        return False
    values: dict[str, Any] = {"name": removal.source_name, "after": removal.after, "step": STEP}
    done = connection.execute(_EMPTY, values).one()
    values |= {"last": done.last, "gone": done.gone, "over": done.seen < STEP}
    connection.execute(_ADVANCE, values)
    if done.gone:
        connection.execute(_UNCOUNT, values)
        recount(connection)
    return True


_OLD = text("""
    SELECT source_name FROM source_removals
    WHERE emptied_at < clock_timestamp() - make_interval(secs => :seconds)
    ORDER BY emptied_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")
_HELD = text("""
    SELECT id FROM unified_items WHERE source_name = :name AND status = 'deleted'
      AND deleted_at < clock_timestamp() - make_interval(secs => :seconds) LIMIT :step FOR UPDATE SKIP LOCKED
""")
# What lies ahead of all transactions, as after a restore, no mirror of this cluster has been told. The statement begins
# when the items are held, so that no change to them is newer than what it sees.
_REMOVE = text(f"""
    WITH gone AS (DELETE FROM unified_items WHERE id = ANY (:ids) RETURNING change_xid)
    SELECT (max(change_xid) FILTER (WHERE change_xid < {NEXT}))::text FROM gone
""")


def remove_some(connection: Connection, retention: timedelta) -> bool:
    """Remove some items of a source that was deleted long ago with all that it had; whether there may be more.

    What has come back since, under the same name, stays.
    """
    seconds = retention.total_seconds()
    name = connection.execute(_OLD, {"seconds": seconds}).scalar()
    if name is None:
        return False
    ids = connection.execute(_HELD, {"name": name, "seconds": seconds, "step": STEP}).scalars().all()
    raise_floor(connection, connection.execute(_REMOVE, {"ids": ids}).scalar())
    if len(ids) < STEP:
        connection.execute(text("DELETE FROM source_removals WHERE source_name = :name"), {"name": name})
    return True
