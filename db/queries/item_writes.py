"""Writing items: a batch at once, the newest record of each winning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2.errors import UniqueViolation
from sqlalchemy.exc import IntegrityError

from db.statement import text
from etl.item import COLUMNS, FIELDS, Kind

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

# How many earlier records of an item are known.
MOST_EARLIER = 20


def write_items(
    connection: Connection,
    values: dict[str, Any],
    *,
    revive: bool,
    keep: bool = False,
    began_at: datetime | None = None,
) -> Row[Any]:
    """Write the items of a batch; how many were inserted, updated, corrected, unchanged and duplicate, and came back.

    `revive` says that items which were deleted come back, `keep` that those which are there stay as they are, and
    `began_at` that those do whose records other runs have stored since. Where none is there yet, to insert them costs a
    fifth less than to upsert them.
    """
    if not connection.execute(_LOCK_ITEMS, values).scalar_one():
        try:
            with connection.begin_nested():
                return connection.execute(_INSERT, values).one()
        except IntegrityError as error:
            if not isinstance(error.orig, UniqueViolation):
                raise
            # One came with another batch meanwhile. What was locked here is free again.
            connection.execute(_LOCK_ITEMS, values)
    return connection.execute(_UPSERT, values | {"revive": revive, "keep": keep, "began_at": began_at}).one()


# Items in key order, so that two batches of a source never wait for each other in a circle.
_LOCK_ITEMS = text("""
    SELECT count(*) FROM (
        SELECT 1 FROM unified_items
        WHERE source_name = :source_name
          AND external_id = ANY (ARRAY(SELECT external_id FROM staged_items WHERE batch_id = :batch_id))
        ORDER BY external_id FOR UPDATE
    ) locked
""")

# What an item takes over from a batch, and what of it is served.
_TAKEN = ("raw_data_id", "raw_ingested_at", "content_hash", *COLUMNS)
_SERVED = ("source_type", *COLUMNS)
# 1.0 and 1.00 are equal, and served as they are written.
_WRITTEN = {field.name: "::text" for field in FIELDS if field.kind is Kind.NUMBER}


def _written(outcome: str) -> str:
    """Writes the newest row of each id in a batch; `outcome` says what of ids that are there, and what is returned."""
    return f"""
    WITH latest AS (
        SELECT DISTINCT ON (external_id) * FROM staged_items
        WHERE batch_id = :batch_id ORDER BY external_id, raw_data_id DESC
    ), written AS (
        INSERT INTO unified_items AS item (
            source_type, source_name, run_id, mapping_version, external_id, {", ".join(_TAKEN)})
        SELECT :source_type, :source_name, :run_id, :mapping_version, external_id, {", ".join(_TAKEN)}
        FROM latest ORDER BY external_id
        {outcome}
    )"""


_INSERT = text(f"""
    {_written("RETURNING 1")}
    SELECT count(*) AS inserted, 0 AS updated, 0 AS corrected, 0 AS unchanged, 0 AS revived,
        (SELECT count(*) FROM staged_items WHERE batch_id = :batch_id) - count(*) AS duplicate
    FROM written
""")

# What is driven again neither deletes an item nor brings it back.
_STATUS, _DELETED_AT = (
    "CASE WHEN :revive THEN 'active' ELSE item.status END",
    "CASE WHEN NOT :revive THEN item.deleted_at END",
)
# The link to the record before, and with it to those before that.
_EARLIER = f"""CASE WHEN excluded.raw_data_id > item.raw_data_id
                THEN (array_prepend(item.raw_data_id, item.earlier))[1:{MOST_EARLIER}] ELSE item.earlier END"""
_OTHERWISE = f"""(item.status, {", ".join(f"item.{name}{_WRITTEN.get(name, '')}" for name in _SERVED)}) IS DISTINCT FROM
                ({_STATUS}, {", ".join(f"excluded.{name}{_WRITTEN.get(name, '')}" for name in _SERVED)})"""
_TAKE_OVER = f"""
        ON CONFLICT (source_name, external_id) DO UPDATE SET
            {", ".join(f"{name} = excluded.{name}" for name in ("source_type", "run_id", "mapping_version", *_TAKEN))},
            status = {_STATUS}, deleted_at = {_DELETED_AT}, earlier = {_EARLIER},
            updated_at = CASE WHEN {_OTHERWISE} THEN clock_timestamp() ELSE item.updated_at END,
            change_xid = CASE WHEN {_OTHERWISE} THEN pg_current_xact_id() ELSE item.change_xid END
        WHERE (excluded.raw_data_id, excluded.mapping_version) > (item.raw_data_id, item.mapping_version)
          AND item.erased_at IS NULL AND NOT :keep
          AND (CAST(:began_at AS timestamptz) IS NULL OR item.run_id = :run_id OR item.raw_ingested_at < :began_at)
        RETURNING external_id, xmax = 0 AS inserted, change_xid = pg_current_xact_id() AS changed
"""

# A row that loses by raw id lost to a later batch of this run, or to a later run when this is a replay. One of which
# all that is served is there already is written only to move its pointers. `prior` is what was there before this
# statement.
_UPSERT = text(f"""
    {_written(_TAKE_OVER)}, prior AS (
        SELECT external_id, content_hash, run_id, status FROM unified_items
        WHERE source_name = :source_name AND external_id = ANY (ARRAY(SELECT external_id FROM latest))
    ), judged AS (
        SELECT CASE
            WHEN written.inserted THEN 'inserted'
            WHEN prior.external_id IS NULL OR prior.run_id = :run_id THEN 'duplicate'
            WHEN written.changed THEN 'updated'
            ELSE 'unchanged'
        END AS verdict, prior.content_hash = latest.content_hash AS same,
            :revive AND prior.status = 'deleted' AND written.external_id IS NOT NULL AS revived
        FROM latest LEFT JOIN prior USING (external_id) LEFT JOIN written USING (external_id)
    )
    SELECT count(*) FILTER (WHERE verdict = 'inserted') AS inserted,
        count(*) FILTER (WHERE verdict = 'updated') AS updated,
        count(*) FILTER (WHERE verdict = 'updated' AND same) AS corrected,
        count(*) FILTER (WHERE verdict = 'unchanged') AS unchanged, count(*) FILTER (WHERE revived) AS revived,
        count(*) FILTER (WHERE verdict = 'duplicate')
            + (SELECT count(*) FROM staged_items WHERE batch_id = :batch_id) - count(*) AS duplicate
    FROM judged
""")
