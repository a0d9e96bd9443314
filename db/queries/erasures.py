"""Erasing: all that is stored of one record is removed, and does not come back.

Who asks only leaves a note (the web may write no record). A sweeper empties the item at once, and then looks through
the stored records of its source, some at a time: what a run has in hand is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.queries.processes import are_of_one_release
from db.statement import text
from db.states import ACTIVE_RUN, OPEN_BATCH
from etl.errors import UnknownItemError
from etl.item import FIELDS

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

# Stored records that are looked at in one step.
MOST_WALKED = 20_000

_ASK = text("""
    INSERT INTO erasures (item_id, source_name, external_id, reason)
    SELECT id, source_name, external_id, :reason FROM unified_items WHERE id = :item_id
    ON CONFLICT (source_name, external_id) DO NOTHING
    RETURNING id
""")


def ask_to_erase(connection: Connection, item_id: int, reason: str) -> datetime:
    """Note that an item is to be erased, for this reason; since when it is. To ask again changes nothing.

    Raises:
        UnknownItemError: there is none with this id.
    """
    connection.execute(_ASK, {"item_id": item_id, "reason": reason})
    query = text("SELECT asked_at FROM erasures WHERE item_id = :item_id")
    asked_at: datetime | None = connection.execute(query, {"item_id": item_id}).scalar()
    if asked_at is None:
        raise UnknownItemError(f"there is no item {item_id}")
    return asked_at


def find_erased(connection: Connection, source_name: str, ids: list[str]) -> frozenset[str]:
    """Which of these ids of a source are erased. Most sources have none, and need not look."""
    if not connection.execute(_HAS_ERASED, {"source_name": source_name}).scalar_one():
        return frozenset()
    return frozenset(connection.execute(_ERASED, {"source_name": source_name, "ids": ids}).scalars())


_HAS_ERASED = text("SELECT EXISTS (SELECT 1 FROM erasures WHERE source_name = :source_name)")
_ERASED = text("SELECT external_id FROM erasures WHERE source_name = :source_name AND external_id = ANY (:ids)")


def erase_some(connection: Connection) -> bool:
    """Take one step with the erasure that was not looked at for longest; False when there is none to do now."""
    if not are_of_one_release(connection):
        # An older one would store the record again.
        return False
    row = connection.execute(_NEXT).first()
    if row is None:
        return False
    values = {"id": row.id, "source_name": row.source_name, "external_id": row.external_id, "item_id": row.item_id}
    if row.emptied_at is None:
        _empty(connection, values)
    else:
        _remove_records(
            connection, values | {"after": row.after, "emptied_at": row.emptied_at, "left": row.raw_ids or []}
        )
    return True


# A run that began before may still store the record, anywhere among those that were walked past.
_IS_SETTLED = f"""NOT EXISTS (
    SELECT 1 FROM etl_runs r WHERE r.source_name = :source_name AND r.{ACTIVE_RUN} AND r.started_at < {{since}})"""
_NEXT = text("""
    SELECT * FROM erasures WHERE done_at IS NULL AND looked_at < clock_timestamp() - make_interval(secs => waits)
    ORDER BY looked_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")


def _empty(connection: Connection, values: dict[str, object]) -> None:
    """The item says nothing any more, and what led to it is gone: its records, and its cases."""
    # Its cases first, as a load locks them before the item.
    _forget(connection, values | {"ids": []})
    row = connection.execute(_LOCK_ITEM, values).one()
    ids = [row.raw_data_id, *(row.earlier or ())]
    free = list(connection.execute(_FREE, values | {"ids": ids}).scalars())
    _forget(connection, values | {"ids": free})
    connection.execute(_EMPTY_ITEM, values)
    if row.was_active:
        connection.execute(_COUNT, values)
    connection.execute(_EMPTIED, values | {"left": [one for one in ids if one not in free]})


def _forget(connection: Connection, values: dict[str, object]) -> None:
    """Remove stored records, the cases of the id and of them, and the samples of them that are shown elsewhere."""
    runs = {"ids": values["ids"], "runs": list(connection.execute(_FORGET_RECORDS, values).scalars())}
    connection.execute(_FORGET_CASES, values)
    for statement in (_FORGET_SEEN, _FORGET_TOLD, _FORGET_MESSAGES):
        connection.execute(statement, runs)
    connection.execute(_FORGET_SAMPLES, values)


_LOCK_ITEM = text(
    "SELECT status = 'active' AS was_active, raw_data_id, earlier FROM unified_items WHERE id = :item_id FOR UPDATE"
)
# What a batch has in hand is left to it.
_IN_HAND = f"""EXISTS (
    SELECT 1 FROM etl_batches b
    WHERE b.source_name = :source_name AND b.{OPEN_BATCH} AND {{id}} BETWEEN b.first_raw_id AND b.last_raw_id)"""
_FREE = text(f"""
    SELECT one FROM unnest(CAST(:ids AS bigint[])) AS one WHERE NOT {_IN_HAND.format(id="one")}
""")
_FORGET_RECORDS = text("""
    WITH gone AS (
        DELETE FROM raw_data WHERE source_name = :source_name AND id = ANY (CAST(:ids AS bigint[])) RETURNING run_id
    )
    SELECT DISTINCT run_id FROM gone
""")
# Samples of values that runs have kept or told: of the batches that held the record, and in words.
_FORGET_SEEN = text("""
    UPDATE etl_batches SET observed = NULL
    WHERE run_id = ANY (:runs) AND observed IS NOT NULL AND EXISTS (
        SELECT 1 FROM unnest(CAST(:ids AS bigint[])) AS one WHERE one BETWEEN first_raw_id AND last_raw_id)
""")
_FORGET_TOLD = text("""
    UPDATE etl_run_events SET detail = detail - 'sample' - 'message'
    WHERE run_id = ANY (:runs) AND event IN ('drift', 'nulled')
""")
_FORGET_MESSAGES = text("""
    UPDATE etl_runs SET error_message = regexp_replace(error_message, ' \\(as in .*?\\)', '', 'g')
    WHERE run_id = ANY (:runs) AND error_message LIKE '% (as in %'
""")
_FORGET_SAMPLES = text("UPDATE source_fields SET sample = NULL WHERE source_name = :source_name AND sample IS NOT NULL")
_FORGET_CASES = text("""
    DELETE FROM rejected_records
    WHERE source_name = :source_name AND (external_id = :external_id OR raw_data_id = ANY (CAST(:ids AS bigint[])))
""")
_CONTENT = ", ".join(f"{field.name} = NULL" for field in FIELDS if field.name != "external_id")
_EMPTY_ITEM = text(f"""
    UPDATE unified_items SET {_CONTENT}, metadata = '{{}}', content_hash = '', earlier = NULL,
        status = 'deleted', deleted_at = coalesce(deleted_at, clock_timestamp()), erased_at = clock_timestamp(),
        updated_at = clock_timestamp(), change_xid = pg_current_xact_id()
    WHERE id = :item_id
""")
_COUNT = text("""
    INSERT INTO etl_checkpoints AS c (source_name, source_type, total_items)
    SELECT source_name, source_type, -1 FROM unified_items WHERE id = :item_id
    ON CONFLICT (source_name) DO UPDATE SET total_items = c.total_items - 1
""")
_EMPTIED = text(f"""
    UPDATE erasures SET emptied_at = clock_timestamp(), looked_at = clock_timestamp(),
        settled = {_IS_SETTLED.format(since="clock_timestamp()")}, raw_ids = :left
    WHERE id = :id
""")


def _remove_records(connection: Connection, values: dict[str, Any]) -> None:
    """Look through some of the stored records of the source, and remove those with the id."""
    row = connection.execute(_WALK, values | {"most": MOST_WALKED}).one()
    freed = list(connection.execute(_FREE, values | {"ids": values["left"]}).scalars())
    if row.ids or freed:
        _forget(connection, values | {"ids": [*row.ids, *freed]})
    left = [one for one in values["left"] if one not in freed]
    found = {"last": row.last, "is_end": row.is_end and not left, "is_settled": row.is_settled, "count": len(row.ids)}
    connection.execute(_ADVANCE, values | found | {"left": left})


# The walk stops before the first of those in hand, and goes on from there later.
_WALK = text(f"""
    WITH walked AS MATERIALIZED (
        SELECT id, source_id FROM raw_data
        WHERE source_name = :source_name AND id > :after ORDER BY source_name, id LIMIT :most
    ), met AS MATERIALIZED (
        SELECT w.id, {_IN_HAND.format(id="w.id")} AS in_hand
        FROM walked w WHERE w.source_id = :external_id
    ), first AS (
        SELECT min(id) FILTER (WHERE in_hand) AS in_hand FROM met
    )
    SELECT coalesce((SELECT array_agg(id) FROM met, first WHERE id < coalesce(first.in_hand, id + 1)), '{{}}') AS ids,
        coalesce(first.in_hand - 1, (SELECT max(id) FROM walked), :after) AS last,
        first.in_hand IS NULL AND (SELECT count(*) FROM walked) < :most AS is_end,
        {_IS_SETTLED.format(since=":emptied_at")} AS is_settled
    FROM first
""")
# Once no older run is left, all is walked once more. Where there is more, it goes on at once; else after a second.
_ADVANCE = text("""
    UPDATE erasures SET looked_at = clock_timestamp(), records = records + :count,
        after = CASE WHEN :is_end AND :is_settled AND NOT settled THEN 0 ELSE :last END,
        waits = CASE WHEN :last > after OR (:is_end AND :is_settled) THEN 0 ELSE 1 END,
        settled = settled OR (:is_end AND :is_settled), raw_ids = :left,
        done_at = CASE WHEN :is_end AND settled THEN clock_timestamp() END
    WHERE id = :id
""")
