"""What extraction knows and stores: one transaction per batch, fenced by the run's token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg2
from msgspec.structs import replace

from db.copy import HEX, NEXT, copy_lines
from db.errors import translate
from db.queries.batches import BatchClaim, stage_new
from db.queries.cases import close_met, find_cases, put_unstorable
from db.queries.deletions import note_seen
from db.queries.requests import note_requests
from db.statement import text
from db.states import ACTIVE_RUN, OPEN_BATCH
from etl.errors import LeaseLostError
from etl.payload import DIGEST_SIZE
from etl.records import StagedItem, StoredRecord
from etl.runs.changes import InFlightIds, KnownContent
from etl.runs.drift import Policy
from etl.runs.outcome import BatchState, Lane, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from etl.records import Mapped, RawBatch
    from etl.reporter import Asked
    from etl.runs.changes import Candidates, Changes
    from etl.runs.slices import RunClaim


@dataclass(frozen=True)
class Stored:
    """A stored batch: its id if it has raw rows to process, and the numbers of the run's open batches."""

    batch_id: int | None
    open_batches: frozenset[int]
    normalized: bool = False


# Arrays go over as JSON, which is quicker to write than the driver's own, and are looked up by index. The answer is one
# row, since the driver takes longer over a row than PostgreSQL takes to find it.
_SERVED = text(f"""
    SELECT json_agg(external_id) AS ids, string_agg(content_hash, '') AS hashes,
        json_agg(external_id) FILTER (WHERE run_id = :run_id) AS written
    FROM (
        SELECT external_id, content_hash, run_id, status FROM unified_items
        WHERE source_name = :source_name AND mapping_version >= :mapped_since
          -- beside a backfill a fetch stores all again: what it meets is to be the newest record
          AND NOT (:alone AND EXISTS (
              SELECT 1 FROM etl_runs b
              WHERE b.source_name = :source_name AND b.lane = 'backfill' AND b.{ACTIVE_RUN}))
          AND external_id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST(:ids AS jsonb))))
        -- Asked for afterwards: to one who does not know a new table yet, an index over the active items looks best.
        OFFSET 0
    ) known
    WHERE status = 'active'
""")
_IN_FLIGHT = text(f"""
    SELECT b.number, p.source_id FROM etl_batches b
    JOIN raw_data p ON p.id BETWEEN b.first_raw_id AND b.last_raw_id AND p.run_id = b.run_id
    WHERE b.run_id = :run_id AND {OPEN_BATCH} AND p.source_id IS NOT NULL
""")


def find_in_flight(connection: Connection, claim: RunClaim) -> InFlightIds:
    """The ids in the batches of the run that are open when it is claimed."""
    found: dict[int, set[str]] = {}
    if claim.open_batches:
        for row in connection.execute(_IN_FLIGHT, {"run_id": claim.run_id}):
            found.setdefault(row.number, set()).add(row.source_id)
    return InFlightIds({number: frozenset(ids) for number, ids in found.items()})


def find_known(connection: Connection, claim: RunClaim, found: Candidates) -> KnownContent:
    """What is served, or in quarantine, of the candidates. Only reads."""
    values: dict[str, Any] = {
        "run_id": claim.run_id,
        "source_name": claim.source_name,
        "mapping_version": claim.mapping_version,
        "mapped_since": claim.mapped_since,
        "lets_drift": Policy.of(claim.config) is Policy.REPORT,
    }
    if claim.keeps_existing:
        served, written = _present(connection, found, values), frozenset[str]()
    else:
        served, written = _served(connection, found.ids, values | {"alone": claim.lane is Lane.FETCH})
    return KnownContent(served, find_cases(connection, found, values), written)


def _served(connection: Connection, ids: list[str], values: dict[str, Any]) -> tuple[dict[str, bytes], frozenset[str]]:
    """The content hash of each id that is served, and which of them this run wrote."""
    if not ids:
        return {}, frozenset()
    row = connection.execute(_SERVED, {**values, "ids": msgspec.json.encode(ids).decode()}).one()
    if row.ids is None:
        return {}, frozenset()
    hashes, size = bytes(row.hashes), DIGEST_SIZE
    ids = msgspec.json.decode(row.ids)
    served = {key: hashes[place * size : (place + 1) * size] for place, key in enumerate(ids)}
    return served, frozenset(msgspec.json.decode(row.written or "[]"))


def _present(connection: Connection, found: Candidates, values: dict[str, Any]) -> dict[str, bytes]:
    """Those of the candidates whose ids are there, whatever they say: as if they said the same."""
    values = values | {"ids": msgspec.json.encode(found.ids).decode()}
    return {key: found.records[key].content_hash for key in connection.execute(_PRESENT, values).scalars()}


_PRESENT = text("""
    SELECT external_id FROM unified_items
    WHERE source_name = :source_name
      AND external_id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST(:ids AS jsonb))))
""")


def store_batch(
    connection: Connection,
    claim: RunClaim,
    batch: RawBatch,
    changes: Changes,
    lease: float,
    mapped: Mapped | None = None,
    asked: Sequence[Asked] = (),
) -> Stored:
    """Store a batch, the position after it and a renewed lease: all or nothing; and what was `asked` for it.

    With `mapped` its rows are staged as well, which saves reading them back, unless PostgreSQL refuses one of them.
    Safe to repeat when the outcome of the commit is unknown.

    Raises:
        LeaseLostError: the run is no longer ours, or it is over.
    """
    run = _locked(connection, claim, len(changes.records))
    if _is_stored(run, claim, batch):
        return _again(connection, claim)
    batch_id, normalized = None, False
    rows = [
        StoredRecord(raw_id, run.ingested_at, r.external_id, r.content_hash, r.payload.decode())
        for raw_id, r in zip(run.raw_ids, changes.records, strict=True)
    ]
    if batch.extracted:
        _copy_raw(connection, claim, rows)
        batch_id = _insert_batch(connection, claim, batch, changes, rows)
        put_unstorable(connection, claim, changes.rejected)
        if claim.is_snapshot:
            note_seen(connection, claim, batch)
        close_met(connection, claim.source_name, changes)
        normalized = mapped is not None and _stage(connection, claim, batch_id, rows, mapped)
    if asked:
        note_requests(connection, claim.run_id, list(asked), claim.batches if batch.extracted else None)
    open_batches = _advance(connection, claim, batch, lease)
    return Stored(batch_id if rows else None, open_batches, normalized)


def _is_stored(run: Row[Any], claim: RunClaim, batch: RawBatch) -> bool:
    """Whether an earlier attempt at this batch was committed. One without records shows by its position alone."""
    if run.batches == claim.batches + 1 or (batch.position.finished and run.extracted_at is not None):
        return True
    return not batch.extracted and run.position == msgspec.json.decode(msgspec.json.encode(batch.position))


# The ids are drawn by the transaction that stores them, and live nowhere else. A sequence goes back when PostgreSQL
# crashes before what was drawn reached the log: ids remembered from before it would be given again. Between
# two ids may lie those of other sources.
_LOCK = text("""
    SELECT batches, token, status, extracted_at, position, clock_timestamp()::text AS ingested_at,
        ARRAY(SELECT nextval('raw_data_id_seq') FROM generate_series(1, :count)) AS raw_ids
    FROM etl_runs WHERE run_id = :run_id FOR NO KEY UPDATE
""")


def _locked(connection: Connection, claim: RunClaim, count: int) -> Row[Any]:
    """The run, locked and checked against the fence, with the ids and the time of so many raw rows."""
    row = connection.execute(_LOCK, {"run_id": claim.run_id, "count": count}).first()
    if row is None or row.token != claim.token or row.status != Status.RUNNING:
        raise LeaseLostError(f"run {claim.run_id} is no longer ours")
    return row


def _again(connection: Connection, claim: RunClaim) -> Stored:
    query = text(f"""
        SELECT b.batch_id, b.state = 'normalized' AS normalized,
            ARRAY(SELECT o.number FROM etl_batches o
                  WHERE o.run_id = r.run_id AND {OPEN_BATCH}) AS open_batches
        FROM etl_runs r
        LEFT JOIN etl_batches b ON b.run_id = r.run_id AND b.number = :number AND b.part = ''
            AND b.first_raw_id IS NOT NULL
        WHERE r.run_id = :run_id
    """)
    row = connection.execute(query, {"run_id": claim.run_id, "number": claim.batches}).one()
    return Stored(row.batch_id, frozenset(row.open_batches), bool(row.normalized))


def _copy_raw(connection: Connection, claim: RunClaim, rows: list[StoredRecord]) -> None:
    head = NEXT.join((str(claim.run_id), claim.source_type, claim.source_name)) + NEXT
    copy_lines(
        connection,
        "raw_data",
        ("run_id", "source_type", "source_name", "id", "ingested_at", "source_id", "raw_payload", "content_hash"),
        (
            f"{head}{r.raw_id}{NEXT}{r.ingested_at}{NEXT}{r.external_id or ''}{NEXT}"
            f"{r.payload}{NEXT}{HEX}{r.content_hash.hex()}"
            for r in rows
        ),
    )


def _stage(connection: Connection, claim: RunClaim, batch_id: int, rows: list[StoredRecord], mapped: Mapped) -> bool:
    """Stage the rows of a batch that was stored just now; False when PostgreSQL refuses one: normalise finds which."""
    batch = BatchClaim(
        batch_id=batch_id,
        run_id=claim.run_id,
        state=BatchState.EXTRACTED,
        token=0,
        attempt=0,
        first_raw_id=rows[0].raw_id,
        last_raw_id=rows[-1].raw_id,
        source_name=claim.source_name,
        source_type=claim.source_type,
        config=claim.config,
        mapping_version=claim.mapping_version,
    )
    items = [StagedItem(rows[one.record.raw_id], one.item) for one in mapped.staged]
    rejects = [replace(one, record=rows[one.record.raw_id]) for one in mapped.rejects]
    try:
        with connection.begin_nested():
            stage_new(connection, batch, replace(mapped, staged=items, rejects=rejects))
    except psycopg2.Error as error:
        if translate(error) is not None:
            raise
        return False
    return True


_INSERT_BATCH = text("""
    INSERT INTO etl_batches (run_id, source_name, number, first_raw_id, last_raw_id, state, dispatched_at, loaded_at,
                             records_extracted, records_unchanged, records_duplicate, records_failed,
                             records_failed_again, records_discarded, low)
    VALUES (:run_id, :source_name, :number, :first, :last, :state,
            CASE WHEN :state = 'extracted' THEN clock_timestamp() END,
            CASE WHEN :state = 'loaded' THEN clock_timestamp() END,
            :extracted, :unchanged, :duplicate, :failed, :failed_again, :discarded, :low)
    RETURNING batch_id
""")


def _insert_batch(
    connection: Connection,
    claim: RunClaim,
    batch: RawBatch,
    changes: Changes,
    rows: list[StoredRecord],
) -> int:
    values = {
        "run_id": claim.run_id,
        "source_name": claim.source_name,
        "number": claim.batches,
        "first": rows[0].raw_id if rows else None,
        "last": rows[-1].raw_id if rows else None,
        "state": BatchState.EXTRACTED if rows else BatchState.LOADED,
        "extracted": batch.extracted,
        "unchanged": changes.unchanged,
        "duplicate": changes.duplicate,
        # What is in quarantine already is not put there again, but it has failed again.
        "failed": changes.failed_again + len(batch.rejected),
        "failed_again": changes.failed_again + len(batch.rejected) - len(changes.rejected),
        "discarded": changes.discarded,
        "low": claim.lane is not Lane.FETCH,
    }
    return int(connection.execute(_INSERT_BATCH, values).scalar_one())


_ADVANCE = text(f"""
    UPDATE etl_runs r
    SET position = CAST(:position AS jsonb), batches = :batches, attempt = 0,
        pages = pages + :pages, bytes = bytes + :bytes, rows_skipped = rows_skipped + :skipped,
        lease_expires_at = CASE WHEN NOT :over THEN clock_timestamp() + make_interval(secs => :lease) END,
        extracted_at = CASE WHEN :over THEN clock_timestamp() END,
        stage = CASE WHEN :over THEN 'loading' ELSE stage END
    WHERE run_id = :run_id
    RETURNING ARRAY(SELECT b.number FROM etl_batches b
                    WHERE b.run_id = r.run_id AND {OPEN_BATCH})
""")


def _advance(connection: Connection, claim: RunClaim, batch: RawBatch, lease: float) -> frozenset[int]:
    values = {
        "run_id": claim.run_id,
        "position": msgspec.json.encode(batch.position).decode(),
        "batches": claim.batches + bool(batch.extracted),
        "pages": batch.pages,
        "bytes": batch.size,
        "skipped": batch.skipped,
        "over": batch.position.finished and not claim.deletes_after(batch.position),
        "lease": lease,
    }
    return frozenset(connection.execute(_ADVANCE, values).scalar_one())
