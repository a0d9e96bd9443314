"""Batches: claimed, staged, loaded, halved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from psycopg2.errors import UniqueViolation
from sqlalchemy.exc import IntegrityError

from db.copy import HEX, NEXT, array, copy_lines
from db.queries.cases import close_fitting, put_poisoned, put_rejects
from db.queries.events import record_event
from db.queries.failures import OTHERS_FAIL
from db.queries.run_locks import lock_run_shared
from db.queries.versions import BOUND, Bound
from db.statement import text
from etl.errors import LeaseLostError
from etl.item import COLUMNS
from etl.mapping.reader import READER
from etl.records import StoredRecord
from etl.runs.outcome import BatchState

if TYPE_CHECKING:
    from decimal import Decimal
    from uuid import UUID

    from sqlalchemy import Connection, Row

    from etl.records import Mapped, StagedItem

# Claims without progress after which a batch is halved.
MAX_BATCH_ATTEMPTS = 3


@dataclass(frozen=True)
class BatchClaim:
    """A claimed batch: its raw rows, the source they belong to, and the token that fences writes.

    It is exhausted when whoever claimed it before died of it, too often.
    """

    batch_id: int
    run_id: UUID
    state: str
    token: int
    attempt: int
    first_raw_id: int
    last_raw_id: int
    source_name: str
    source_type: str
    config: dict[str, Any]
    mapping_version: int
    exhausted: bool = False


_CLAIM = text(f"""
    UPDATE etl_batches b
    SET token = b.token + 1, attempt = b.attempt + 1, claimed_at = clock_timestamp(), not_before = NULL,
        lease_expires_at = clock_timestamp() + make_interval(secs => :lease)
    FROM etl_runs r, sources s
    WHERE b.batch_id = :batch_id AND b.state = :state AND r.run_id = b.run_id AND r.status = 'running'
      AND s.name = b.source_name
      AND (b.not_before IS NULL OR b.not_before <= clock_timestamp())
      AND (b.lease_expires_at IS NULL OR b.lease_expires_at < clock_timestamp())
    RETURNING b.batch_id, b.run_id, b.state, b.token, b.attempt, b.first_raw_id, b.last_raw_id, b.source_name,
        {BOUND} AS bound, CASE WHEN b.state = 'normalized' THEN b.mapping_version END AS staged_version,
        b.attempt > :max_attempts AND NOT {OTHERS_FAIL} AS exhausted
""")


def claim_batch(connection: Connection, batch_id: int, state: str, lease: float) -> BatchClaim | None:
    """Take the lease of a batch that is in this state; None when it is not to be had."""
    values = {"batch_id": batch_id, "state": state, "lease": lease, "max_attempts": MAX_BATCH_ATTEMPTS}
    row = connection.execute(_CLAIM, values).first()
    if row is None:
        return None
    found: dict[str, Any] = row._asdict()
    bound, staged = Bound(*found.pop("bound")), found.pop("staged_version")
    # What is staged keeps the version that it was made by.
    return BatchClaim(
        **found,
        config=bound.config,
        source_type=bound.config["type"],
        mapping_version=bound.mapping_version if staged is None else staged,
    )


def read_raw(connection: Connection, claim: BatchClaim) -> list[StoredRecord]:
    """The raw rows of a batch, in the order the source gave them."""
    query = text("""
        SELECT id, ingested_at::text, source_id, content_hash, raw_payload::text FROM raw_data
        WHERE id BETWEEN :first AND :last AND run_id = :run_id ORDER BY id
    """)
    # Taken at once: one by one each row costs a call through several layers.
    rows = connection.execute(query, _range(claim)).all()
    return [StoredRecord(raw_id, at, key, bytes(content_hash), body) for raw_id, at, key, content_hash, body in rows]


def stage_batch(connection: Connection, claim: BatchClaim, mapped: Mapped) -> None:
    """Put the normalised rows where load finds them, and the others into quarantine.

    Raises:
        LeaseLostError: the batch is no longer ours, or the run is over.
    """
    _check_fence(connection, claim, BatchState.EXTRACTED)
    connection.execute(text("DELETE FROM staged_items WHERE batch_id = :id"), {"id": claim.batch_id})
    stage_new(connection, claim, mapped)


def stage_new(connection: Connection, claim: BatchClaim, mapped: Mapped) -> None:
    """The same for a batch that nobody else can have."""
    _copy_staged(connection, claim, mapped.staged)
    put_rejects(connection, claim, mapped.rejects)
    values = {
        "batch_id": claim.batch_id,
        "staged": len(mapped.staged),
        "unmapped": len(mapped.rejects),
        "reader": READER,
        "observed": None if mapped.observed is None else msgspec.json.encode(mapped.observed).decode(),
        "mapping_version": claim.mapping_version,
    }
    connection.execute(_NORMALIZED, values)


_NORMALIZED = text("""
    UPDATE etl_batches
    SET state = 'normalized', staged_count = :staged, staged_token = token, attempt = 0,
        mapping_version = :mapping_version, normalized_at = clock_timestamp(),
        -- halves go on from when the whole began to fail
        failing_since = CASE WHEN part <> '' THEN failing_since END, failure = CASE WHEN part <> '' THEN failure END,
        -- one that is normalised again is not counted twice
        records_failed = records_failed - records_unmapped + :unmapped, records_unmapped = :unmapped, reader = :reader,
        observed = CAST(:observed AS jsonb),
        lease_expires_at = NULL, claimed_at = NULL,
        dispatched_at = clock_timestamp(), dispatch_count = 0
    WHERE batch_id = :batch_id
""")

_STAGED_COLUMNS = ("batch_id", "token", "raw_data_id", "raw_ingested_at", "external_id", "content_hash", *COLUMNS)


def _copy_staged(connection: Connection, claim: BatchClaim, staged: list[StagedItem]) -> None:
    head = f"{claim.batch_id}{NEXT}{claim.token}{NEXT}"
    copy_lines(connection, "staged_items", _STAGED_COLUMNS, (head + _staged_line(row) for row in staged))


# Writes times too, in a sixth of what `isoformat` takes.
_json = msgspec.json.Encoder(decimal_format="number").encode


def _staged_line(row: StagedItem) -> str:
    record, item = row.record, row.item
    return (
        f"{record.raw_id}{NEXT}{record.ingested_at}{NEXT}{record.external_id}{NEXT}"
        f"{HEX}{record.content_hash.hex()}{NEXT}"
        f"{item.title or ''}{NEXT}{item.description or ''}{NEXT}{item.category or ''}{NEXT}{item.url or ''}{NEXT}"
        f"{item.image_url or ''}{NEXT}{item.author or ''}{NEXT}"
        f"{_number(item.amount)}{NEXT}{_number(item.quantity)}{NEXT}{_number(item.rating)}{NEXT}"
        f"{array(item.tags) if item.tags else ''}{NEXT}"
        f"{_json(item.published_at)[1:-1].decode() if item.published_at else ''}{NEXT}"
        f"{_json(item.metadata).decode() if item.metadata else '{}'}"
    )


def _number(value: Decimal | None) -> str:
    return "" if value is None else str(value)


def load_batch(connection: Connection, claim: BatchClaim) -> bool:
    """Write the staged rows to the items and close the batch; False when staging was emptied and must be filled again.

    Raises:
        LeaseLostError: the batch is no longer ours, or the run is over.
    """
    _check_fence(connection, claim, BatchState.NORMALIZED)
    if not _staging_complete(connection, claim):
        connection.execute(_BACK_TO_EXTRACTED, {"batch_id": claim.batch_id})
        return False
    about = ("batch_id", "run_id", "source_name", "source_type", "mapping_version")
    values = {name: getattr(claim, name) for name in about}
    # Staging is full or empty as it happens, so what the planner believes of its size is worth nothing: without this it
    # may compare every row of a batch with every other. Items are looked up by arrays of ids, which are no joins.
    connection.execute(text("SET LOCAL enable_nestloop = off"))
    close_fitting(connection, claim.source_name, claim.batch_id)
    connection.execute(_CLOSE, values | _write_items(connection, values)._asdict())
    connection.execute(text("DELETE FROM staged_items WHERE batch_id = :batch_id"), {"batch_id": claim.batch_id})
    return True


def _write_items(connection: Connection, values: dict[str, Any]) -> Row[Any]:
    """Write the items of a batch. Where none is there yet, to insert them costs a fifth less than to upsert them."""
    if not connection.execute(_LOCK_ITEMS, values).scalar_one():
        try:
            with connection.begin_nested():
                return connection.execute(_INSERT, values).one()
        except IntegrityError as error:
            if not isinstance(error.orig, UniqueViolation):
                raise
            # One came with another batch meanwhile. What was locked here is free again.
            connection.execute(_LOCK_ITEMS, values)
    return connection.execute(_UPSERT, values).one()


def _staging_complete(connection: Connection, claim: BatchClaim) -> bool:
    query = text("""
        SELECT b.staged_count = (SELECT count(*) FROM staged_items s
                                 WHERE s.batch_id = b.batch_id AND s.token = b.staged_token)
        FROM etl_batches b WHERE b.batch_id = :batch_id
    """)
    return bool(connection.execute(query, {"batch_id": claim.batch_id}).scalar_one())


_BACK_TO_EXTRACTED = text("""
    UPDATE etl_batches
    SET state = 'extracted', staged_count = NULL, staged_token = NULL, lease_expires_at = NULL, claimed_at = NULL,
        dispatched_at = NULL, attempt = 0
    WHERE batch_id = :batch_id
""")

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
_OTHERWISE = f"""(({", ".join(f"item.{name}" for name in ("status", "source_type", *COLUMNS))}) IS DISTINCT FROM
                ({", ".join(("'active'", *(f"excluded.{name}" for name in ("source_type", *COLUMNS))))}))"""


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
    SELECT count(*) AS inserted, 0 AS updated, 0 AS corrected, 0 AS unchanged,
        (SELECT count(*) FROM staged_items WHERE batch_id = :batch_id) - count(*) AS duplicate
    FROM written
""")

_TAKE_OVER = f"""
        ON CONFLICT (source_name, external_id) DO UPDATE SET
            {", ".join(f"{name} = excluded.{name}" for name in ("source_type", "run_id", "mapping_version", *_TAKEN))},
            status = 'active', deleted_at = NULL,
            updated_at = CASE WHEN {_OTHERWISE} THEN clock_timestamp() ELSE item.updated_at END,
            change_xid = CASE WHEN {_OTHERWISE} THEN pg_current_xact_id() ELSE item.change_xid END
        WHERE (excluded.raw_data_id, excluded.mapping_version) > (item.raw_data_id, item.mapping_version)
        RETURNING external_id, xmax = 0 AS inserted, change_xid = pg_current_xact_id() AS changed
"""

# A row that loses by raw id lost to a later batch of this run, or to a later run when this is a replay. One of which
# all that is served is there already is written only to move its pointers. `prior` is what was there before this
# statement.
_UPSERT = text(f"""
    {_written(_TAKE_OVER)}, prior AS (
        SELECT external_id, content_hash, run_id FROM unified_items
        WHERE source_name = :source_name AND external_id = ANY (ARRAY(SELECT external_id FROM latest))
    ), judged AS (
        SELECT CASE
            WHEN written.inserted THEN 'inserted'
            WHEN prior.external_id IS NULL OR prior.run_id = :run_id THEN 'duplicate'
            WHEN written.changed THEN 'updated'
            ELSE 'unchanged'
        END AS verdict, prior.content_hash = latest.content_hash AS same
        FROM latest LEFT JOIN prior USING (external_id) LEFT JOIN written USING (external_id)
    )
    SELECT count(*) FILTER (WHERE verdict = 'inserted') AS inserted,
        count(*) FILTER (WHERE verdict = 'updated') AS updated,
        count(*) FILTER (WHERE verdict = 'updated' AND same) AS corrected,
        count(*) FILTER (WHERE verdict = 'unchanged') AS unchanged,
        count(*) FILTER (WHERE verdict = 'duplicate')
            + (SELECT count(*) FROM staged_items WHERE batch_id = :batch_id) - count(*) AS duplicate
    FROM judged
""")

_CLOSE = text("""
    UPDATE etl_batches
    SET state = 'loaded', loaded_at = clock_timestamp(), lease_expires_at = NULL, failing_since = NULL, failure = NULL,
        records_inserted = records_inserted + :inserted, records_updated = records_updated + :updated,
        records_corrected = records_corrected + :corrected,
        records_unchanged = records_unchanged + :unchanged, records_duplicate = records_duplicate + :duplicate
    WHERE batch_id = :batch_id
""")


def halve_batch(connection: Connection, claim: BatchClaim) -> list[int]:
    """Replace a batch that keeps killing its workers by its two halves; what cannot be halved goes to quarantine.

    Returns:
        The ids of the new batches, none when there are no halves.
    """
    _check_fence(connection, claim, claim.state)
    connection.execute(text("DELETE FROM staged_items WHERE batch_id = :id"), {"id": claim.batch_id})
    ids = connection.execute(_IDS, _range(claim)).scalars().all()
    # Each half has fewer different ids than the whole, so halving ends.
    middle = ids[(len(ids) - 1) // 2] if ids else claim.last_raw_id
    is_whole = not ids or middle == ids[-1]
    values = {"batch_id": claim.batch_id, "poisoned": 0, "state": BatchState.HALVED}
    if is_whole:
        poisoned = put_poisoned(connection, _range(claim) | {"mapping_version": claim.mapping_version})
        values |= {"poisoned": poisoned, "state": BatchState.LOADED}
    connection.execute(_RETIRE, values)
    record_event(connection, claim.run_id, "batch_halved", batch_id=claim.batch_id, records=len(ids))
    if is_whole:
        return []
    ranges = [("a", claim.first_raw_id, middle), ("b", middle + 1, claim.last_raw_id)]
    return [_insert_part(connection, claim, part, first, last) for part, first, last in ranges]


_IDS = text("SELECT DISTINCT id FROM raw_data WHERE id BETWEEN :first AND :last AND run_id = :run_id ORDER BY id")

_RETIRE = text("""
    UPDATE etl_batches
    SET state = :state, loaded_at = clock_timestamp(), lease_expires_at = NULL,
        records_failed = records_failed - records_unmapped + :poisoned, records_unmapped = :poisoned
    WHERE batch_id = :batch_id
""")


def _insert_part(connection: Connection, claim: BatchClaim, part: str, first: int, last: int) -> int:
    query = text("""
        INSERT INTO etl_batches (run_id, source_name, number, part, first_raw_id, last_raw_id, state, dispatched_at,
                                 failing_since, failure)
        SELECT run_id, source_name, number, part || :part, :first, :last, 'extracted', clock_timestamp(),
            failing_since, failure
        FROM etl_batches WHERE batch_id = :batch_id
        RETURNING batch_id
    """)
    values = {"batch_id": claim.batch_id, "part": part, "first": first, "last": last}
    return int(connection.execute(query, values).scalar_one())


def _check_fence(connection: Connection, claim: BatchClaim, state: str) -> None:
    """Lock the run against its end, then the batch: who lost either may not write."""
    batch = text("""
        SELECT 1 FROM etl_batches WHERE batch_id = :batch_id AND token = :token AND state = :state FOR UPDATE
    """)
    values = {"batch_id": claim.batch_id, "token": claim.token, "state": state}
    if not lock_run_shared(connection, claim.run_id) or not connection.execute(batch, values).first():
        raise LeaseLostError(f"batch {claim.batch_id} is no longer ours")


def _range(claim: BatchClaim) -> dict[str, Any]:
    """A batch has the rows of its own run between its first and its last id, and no others."""
    return {"first": claim.first_raw_id, "last": claim.last_raw_id, "run_id": claim.run_id}
