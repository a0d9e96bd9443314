"""Batches: claimed, staged, loaded, halved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from db.copy import HEX, NEXT, array, copy_lines
from db.queries.cases import close_fitting, put_poisoned, put_rejects
from db.queries.driven import close_driven, leave_taken_back, put_driven
from db.queries.events import record_event
from db.queries.failures import OTHERS_FAIL
from db.queries.item_writes import write_items
from db.queries.raw_rows import RawRows, find_ids, read_rows
from db.queries.run_locks import lock_run_shared
from db.queries.versions import BOUND, Bound
from db.statement import text
from etl.errors import LeaseLostError
from etl.item import COLUMNS
from etl.mapping.reader import READER
from etl.runs.outcome import BatchState, Lane

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.records import Mapped, StagedItem, StoredRecord

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
    lane: str = Lane.FETCH
    keeps_existing: bool = False
    began_at: datetime | None = None
    mapped_since: int = 0
    raw_ids: list[int] | None = None
    raw_since: datetime | None = None
    raw_until: datetime | None = None

    @property
    def is_replay(self) -> bool:
        """Whether its rows are driven again."""
        return self.lane == Lane.REPLAY

    @property
    def is_low(self) -> bool:
        """Whether others go before it."""
        return self.lane != Lane.FETCH

    @property
    def rows(self) -> RawRows:
        """Its rows."""
        return RawRows(self.run_id, self.first_raw_id, self.last_raw_id, self.raw_ids, self.raw_since, self.raw_until)


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
        r.lane, coalesce(r.lane = 'backfill' AND r.scope ->> 'existing' = 'keep', false) AS keeps_existing,
        CASE WHEN r.lane = 'backfill' THEN r.started_at END AS began_at,
        b.raw_ids, b.raw_since, b.raw_until, {BOUND} AS bound,
        CASE WHEN b.state = 'normalized' THEN b.mapping_version END AS staged_version,
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
        mapped_since=bound.mapped_since,
    )


def read_raw(connection: Connection, claim: BatchClaim) -> list[StoredRecord]:
    """The raw rows of a batch, in the order the source gave them."""
    return read_rows(connection, claim.rows)


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
    copy_staged(connection, "staged_items", (claim.batch_id, claim.token), mapped.staged)
    again = put_driven(connection, claim, mapped.rejects) if claim.is_replay else None
    if again is None:
        put_rejects(connection, claim, mapped.rejects)
    values = {
        "batch_id": claim.batch_id,
        "staged": len(mapped.staged),
        "unmapped": len(mapped.rejects),
        "again": again,
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
        -- a second time, those that the first one has put into quarantine are not counted
        records_failed_again = greatest(records_failed_again, coalesce(:again, 0)),
        observed = CAST(:observed AS jsonb),
        lease_expires_at = NULL, claimed_at = NULL,
        dispatched_at = clock_timestamp(), dispatch_count = 0
    WHERE batch_id = :batch_id
""")

STAGED_COLUMNS = ("batch_id", "token", "raw_data_id", "raw_ingested_at", "external_id", "content_hash", *COLUMNS)


def copy_staged(connection: Connection, table: str, batch: tuple[int, int], staged: list[StagedItem]) -> None:
    """Copy items into a table like staged_items, as those of a batch (its id and token)."""
    head = NEXT.join(map(str, batch)) + NEXT
    copy_lines(connection, table, STAGED_COLUMNS, (head + _staged_line(row) for row in staged))


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
    left_out = leave_taken_back(connection, claim.source_name, claim.batch_id) if claim.is_replay else 0
    if not claim.keeps_existing:
        (close_driven if claim.is_replay else close_fitting)(connection, claim.source_name, claim.batch_id)
    counts = write_items(
        connection, values, revive=not claim.is_low, keep=claim.keeps_existing, began_at=claim.began_at
    )._asdict()
    connection.execute(_CLOSE, values | counts | {"unchanged": counts["unchanged"] + left_out})
    connection.execute(text("DELETE FROM staged_items WHERE batch_id = :batch_id"), {"batch_id": claim.batch_id})
    return True


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

_CLOSE = text("""
    UPDATE etl_batches
    SET state = 'loaded', loaded_at = clock_timestamp(), lease_expires_at = NULL, failing_since = NULL, failure = NULL,
        raw_ids = NULL, records_inserted = records_inserted + :inserted, records_updated = records_updated + :updated,
        records_corrected = records_corrected + :corrected,
        records_unchanged = records_unchanged + :unchanged, records_duplicate = records_duplicate + :duplicate,
        items_gained = coalesce(items_gained, 0) + :inserted + :revived
    WHERE batch_id = :batch_id
""")


def halve_batch(connection: Connection, claim: BatchClaim) -> list[int]:
    """Replace a batch that keeps killing its workers by its two halves; what cannot be halved goes to quarantine.

    Returns:
        The ids of the new batches, none when there are no halves.
    """
    _check_fence(connection, claim, claim.state)
    connection.execute(text("DELETE FROM staged_items WHERE batch_id = :id"), {"id": claim.batch_id})
    ids = list(find_ids(connection, claim.rows))
    # Each half has fewer different ids than the whole, so halving ends.
    middle = ids[(len(ids) - 1) // 2] if ids else claim.last_raw_id
    is_whole = not ids or middle == ids[-1]
    values = {"batch_id": claim.batch_id, "poisoned": 0, "state": BatchState.HALVED}
    if is_whole:
        poisoned = put_poisoned(connection, claim, claim.rows)
        values |= {"poisoned": poisoned, "state": BatchState.LOADED}
    connection.execute(_RETIRE, values)
    record_event(connection, claim.run_id, "batch_halved", batch_id=claim.batch_id, records=len(ids))
    if is_whole:
        return []
    ranges = [("a", claim.first_raw_id, middle), ("b", middle + 1, claim.last_raw_id)]
    return [_insert_part(connection, claim, part, first, last) for part, first, last in ranges]


_RETIRE = text("""
    UPDATE etl_batches
    SET state = :state, loaded_at = clock_timestamp(), lease_expires_at = NULL,
        records_failed = records_failed - records_unmapped + :poisoned, records_unmapped = :poisoned
    WHERE batch_id = :batch_id
""")


def _insert_part(connection: Connection, claim: BatchClaim, part: str, first: int, last: int) -> int:
    query = text("""
        INSERT INTO etl_batches (run_id, source_name, number, part, first_raw_id, last_raw_id, state, dispatched_at,
                                 failing_since, failure, low, raw_since, raw_until, raw_ids)
        SELECT run_id, source_name, number, part || :part, :first, :last, 'extracted', clock_timestamp(),
            failing_since, failure, low, raw_since, raw_until,
            CASE WHEN raw_ids IS NOT NULL
                THEN ARRAY(SELECT id FROM unnest(raw_ids) AS id WHERE id BETWEEN :first AND :last ORDER BY id) END
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
