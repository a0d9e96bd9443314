"""Raw ids that were given twice: looked for in what was stored since the last look, in bounded steps.

The key of `raw_data` is (id, time), since it is partitioned by time: it cannot show by itself that an id is unique.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.queries.alarms import raise_alarm
from db.statement import text

if TYPE_CHECKING:
    from sqlalchemy import Connection

COPIES = "raw_ids_repeated"
BEHIND = "raw_ids_behind"
LOOK = "raw_ids"
LOOK_LOCK = 7236150421
# Batches of one look.
LIMIT = 50
# By then a transaction that stored a batch has ended, and none with a lower id is still to come: seconds.
SETTLED_SECONDS = 60.0


@dataclass(frozen=True)
class Look:
    """What a look at some batches found: how many there were, and the ids in their ranges that exist twice."""

    batches: int
    copies: int = 0


_NEXT = text("""
    SELECT batch_id, source_name, first_raw_id, last_raw_id FROM etl_batches
    WHERE batch_id > :seen AND created_at < clock_timestamp() - make_interval(secs => :settled)
    ORDER BY batch_id LIMIT :limit
""")
_COPIES = text("""
    SELECT count(*) AS copies, min(id) AS first FROM (
        SELECT id FROM raw_data WHERE id BETWEEN :first AND :last GROUP BY id HAVING count(*) > 1) twice
""")
_SEEN = text("""
    INSERT INTO etl_looks (name, seen) VALUES (:name, :seen)
    ON CONFLICT (name) DO UPDATE SET seen = excluded.seen, looked_at = clock_timestamp()
""")


def look_for_copies(connection: Connection, settled: float = SETTLED_SECONDS) -> Look:
    """Look at the next batches. One sweeper does at a time; what it finds becomes an alarm."""
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": LOOK_LOCK}).scalar_one():
        return Look(0)
    seen = connection.execute(text("SELECT seen FROM etl_looks WHERE name = :name"), {"name": LOOK}).scalar() or 0
    batches = connection.execute(_NEXT, {"seen": seen, "settled": settled, "limit": LIMIT}).all()
    found = 0
    for batch in batches:
        if batch.first_raw_id is None:
            continue
        row = connection.execute(_COPIES, {"first": batch.first_raw_id, "last": batch.last_raw_id}).one()
        if row.copies:
            found += row.copies
            where = f"in the range of batch {batch.batch_id} of {batch.source_name}, the first is {row.first}"
            raise_alarm(connection, COPIES, f"{row.copies} raw ids exist twice {where}")
    if batches:
        connection.execute(_SEEN, {"name": LOOK, "seen": batches[-1].batch_id})
    return Look(len(batches), found)


_IS_BEHIND = text("SELECT s.last_value < (SELECT max(id) FROM raw_data) FROM raw_data_id_seq s")


def advance_sequence(connection: Connection) -> bool:
    """Put the sequence above all raw ids if it is behind them, as after a partial restore; whether it was."""
    if not connection.execute(_IS_BEHIND).scalar_one():
        return False
    # To alter a sequence is to lock it: nobody draws before it is set.
    connection.execute(text("ALTER SEQUENCE raw_data_id_seq OWNED BY NONE"))
    connection.execute(
        text("""
        SELECT setval('raw_data_id_seq', greatest((SELECT last_value FROM raw_data_id_seq),
                                                  (SELECT max(id) FROM raw_data)) + 1)
    """)
    )
    raise_alarm(connection, BEHIND, "the sequence of raw ids was behind ids in use; ids may have been given twice")
    return True
