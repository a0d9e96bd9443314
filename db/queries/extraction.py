"""What extraction knows and stores: one transaction per batch, fenced by the run's token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import text

from db.copy import HEX, NEXT, copy_lines, copy_rows
from etl.errors import LeaseLostError
from etl.payload import digest
from etl.pending import Pending
from etl.records import Known

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.queries.runs import RunClaim
    from etl.records import BadRecord, RawBatch, RawRecord, Sifted

# Bytes of an unstorable record that the quarantine keeps.
MAX_RAW_BYTES = 64 * 1024


@dataclass(frozen=True)
class Stored:
    """A stored batch: its id if it has raw rows to process, and the numbers of the run's open batches."""

    batch_id: int | None
    open_batches: frozenset[int]


# Arrays go over as JSON, which is quicker to write than the driver's own, and are looked up by index.
_SERVED = text("""
    SELECT external_id, content_hash, run_id = :run_id AS written FROM unified_items
    WHERE source_name = :source_name AND mapping_version = :mapping_version AND status = 'active'
      AND external_id = ANY (ARRAY(SELECT jsonb_array_elements_text(CAST(:ids AS jsonb))))
""")
_OPEN_REJECTS = text("""
    SELECT r.external_id, r.content_hash, r.run_id = :run_id AS written FROM rejected_records r
    WHERE r.source_name = :source_name AND r.state = 'open' AND r.mapping_version = :mapping_version
      AND r.rule <> 'poison'
      AND r.content_hash = ANY (ARRAY(
        SELECT decode(hash, 'hex') FROM jsonb_array_elements_text(CAST(:hashes AS jsonb)) AS hash))
""")
_PENDING = text("""
    SELECT b.number, p.source_id FROM etl_batches b
    JOIN raw_data p ON p.id BETWEEN b.first_raw_id AND b.last_raw_id AND p.source_name = :source_name
    WHERE b.run_id = :run_id AND b.state IN ('extracted', 'normalized') AND p.source_id IS NOT NULL
""")


def find_pending(connection: Connection, claim: RunClaim) -> Pending:
    """The ids in the batches of the run that are open when it is claimed."""
    found: dict[int, set[str]] = {}
    if claim.open_batches:
        values = {"run_id": claim.run_id, "source_name": claim.config["name"]}
        for row in connection.execute(_PENDING, values):
            found.setdefault(row.number, set()).add(row.source_id)
    return Pending({number: frozenset(ids) for number, ids in found.items()})


def find_known(
    connection: Connection,
    claim: RunClaim,
    records: dict[str | bytes, RawRecord],
    rejected: list[BadRecord],
    pending: Pending,
) -> Known:
    """Which records are served, or quarantined, with exactly this content and mapping.

    An id that is pending is never served as it is. A batch that is loaded meanwhile does no harm: its ids count as
    pending until the next batch is stored.
    """
    values: dict[str, Any] = {
        "run_id": claim.run_id,
        "source_name": claim.config["name"],
        "mapping_version": claim.mapping_version,
    }
    served = _known_items(connection, records, values, pending)
    rejects = _known_rejects(connection, claim, records, rejected, values)
    written = {key for found in (served, rejects) for key, ours in found.items() if ours}
    return Known(frozenset(served), frozenset(rejects.keys() - served.keys()), frozenset(written))


def _known_items(
    connection: Connection, records: dict[str | bytes, RawRecord], values: dict[str, Any], pending: Pending
) -> dict[str | bytes, bool]:
    """The keys that are served with this content, and whether this run wrote them."""
    ids = [r.external_id for r in records.values() if r.external_id is not None and r.external_id not in pending]
    if not ids:
        return {}
    rows = connection.execute(_SERVED, {**values, "ids": msgspec.json.encode(ids).decode()}).all()
    return {key: written for key, found, written in rows if records[key].content_hash == bytes(found)}


def _known_rejects(
    connection: Connection,
    claim: RunClaim,
    records: dict[str | bytes, RawRecord],
    rejected: list[BadRecord],
    values: dict[str, Any],
) -> dict[str | bytes, bool]:
    """The keys in open quarantine, and whether this run put them there.

    A reject is known by its whole payload: a field that is ignored elsewhere may be the one that was mended.
    """
    whole = {digest(r.payload) if claim.config.get("ignore") else r.content_hash: key for key, r in records.items()}
    whole |= {content_hash: content_hash for content_hash in map(digest, (bad.raw for bad in rejected))}
    hashes = msgspec.json.encode([content_hash.hex() for content_hash in whole]).decode()
    rows = connection.execute(_OPEN_REJECTS, {**values, "hashes": hashes}).all()
    found = [(whole[bytes(row.content_hash)], row) for row in rows]
    return {key: row.written for key, row in found if row.external_id is None or row.external_id == key}


def store_batch(
    connection: Connection, claim: RunClaim, batch: RawBatch, sifted: Sifted, new_rejects: list[BadRecord], lease: float
) -> Stored:
    """Store a batch, the position after it and a renewed lease: all or nothing.

    Safe to repeat when the outcome of the commit is unknown.

    Raises:
        LeaseLostError: the run is no longer ours, or it is over.
    """
    if _stored_before(connection, claim, finishing=batch.position.finished):
        return _again(connection, claim)
    batch_id = None
    if batch.extracted:
        raw_ids = _copy_raw(connection, claim, sifted.kept)
        batch_id = _insert_batch(connection, claim, batch, sifted, raw_ids)
        _copy_unstorable(connection, claim, new_rejects)
    open_batches = _advance(connection, claim, batch, lease)
    return Stored(batch_id if sifted.kept else None, open_batches)


def _stored_before(connection: Connection, claim: RunClaim, *, finishing: bool) -> bool:
    """Check the fence under a row lock; True when this very batch is stored already."""
    query = text("SELECT batches, token, status, extracted_at FROM etl_runs WHERE run_id = :run_id FOR NO KEY UPDATE")
    row = connection.execute(query, {"run_id": claim.run_id}).first()
    if row is None or row.token != claim.token or row.status != "running":
        raise LeaseLostError(f"run {claim.run_id} is no longer ours")
    return bool(row.batches == claim.batches + 1 or (finishing and row.extracted_at is not None))


def _again(connection: Connection, claim: RunClaim) -> Stored:
    query = text("""
        SELECT (SELECT batch_id FROM etl_batches b WHERE b.run_id = :run_id AND b.number = :number AND b.part = ''
                AND b.first_raw_id IS NOT NULL) AS batch_id,
            ARRAY(SELECT b.number FROM etl_batches b
                  WHERE b.run_id = :run_id AND b.state IN ('extracted', 'normalized')) AS open_batches
    """)
    row = connection.execute(query, {"run_id": claim.run_id, "number": claim.batches}).one()
    return Stored(row.batch_id, frozenset(row.open_batches))


def _copy_raw(connection: Connection, claim: RunClaim, kept: list[RawRecord]) -> tuple[int, int] | None:
    """Append raw rows; the range of their ids. Ids of other sources may lie in it too."""
    if not kept:
        return None
    # One id is given up to learn where the range starts: cheaper than asking COPY for each row's id.
    first = connection.execute(text("SELECT nextval('raw_data_id_seq')")).scalar_one()
    head = NEXT.join((str(claim.run_id), claim.config["type"], claim.config["name"])) + NEXT
    copy_lines(
        connection,
        "raw_data",
        ("run_id", "source_type", "source_name", "source_id", "raw_payload", "content_hash"),
        (f"{head}{r.external_id or ''}{NEXT}{r.payload.decode()}{NEXT}{HEX}{r.content_hash.hex()}" for r in kept),
    )
    last = connection.execute(text("SELECT currval('raw_data_id_seq')")).scalar_one()
    return first, last


_INSERT_BATCH = text("""
    INSERT INTO etl_batches (run_id, source_name, number, first_raw_id, last_raw_id, state, dispatched_at, loaded_at,
                             records_extracted, records_unchanged, records_duplicate, records_failed)
    VALUES (:run_id, :source_name, :number, :first, :last, :state,
            CASE WHEN :state = 'extracted' THEN clock_timestamp() END,
            CASE WHEN :state = 'loaded' THEN clock_timestamp() END,
            :extracted, :unchanged, :duplicate, :failed)
    RETURNING batch_id
""")


def _insert_batch(
    connection: Connection,
    claim: RunClaim,
    batch: RawBatch,
    sifted: Sifted,
    raw_ids: tuple[int, int] | None,
) -> int:
    values = {
        "run_id": claim.run_id,
        "source_name": claim.config["name"],
        "number": claim.batches,
        "first": raw_ids and raw_ids[0],
        "last": raw_ids and raw_ids[1],
        "state": "extracted" if raw_ids else "loaded",
        "extracted": batch.extracted,
        "unchanged": sifted.unchanged,
        "duplicate": sifted.duplicate,
        # What is in quarantine already is not put there again, but it has failed again.
        "failed": sifted.rejected + len(batch.rejected),
    }
    return int(connection.execute(_INSERT_BATCH, values).scalar_one())


def _copy_unstorable(connection: Connection, claim: RunClaim, rejected: list[BadRecord]) -> None:
    copy_rows(
        connection,
        "rejected_records",
        (
            *("run_id", "source_name", "source_type", "content_hash", "raw_bytes", "raw_truncated", "stage"),
            *("field", "rule", "message", "mapping_version"),
        ),
        (
            (
                *(str(claim.run_id), claim.config["name"], claim.config["type"], digest(bad.raw)),
                *(bad.raw[:MAX_RAW_BYTES], len(bad.raw) > MAX_RAW_BYTES, "extract"),
                *(_storable(bad.field), bad.rule, _storable(bad.message), claim.mapping_version),
            )
            for bad in rejected
        ),
    )


def _storable(shown: str) -> str:
    return shown.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


_ADVANCE = text("""
    UPDATE etl_runs r
    SET position = CAST(:position AS jsonb), batches = :batches, attempt = 0,
        pages = pages + :pages, bytes = bytes + :bytes,
        lease_expires_at = CASE WHEN NOT :finished THEN clock_timestamp() + make_interval(secs => :lease) END,
        extracted_at = CASE WHEN :finished THEN clock_timestamp() END,
        stage = CASE WHEN :finished THEN 'loading' ELSE stage END
    WHERE run_id = :run_id
    RETURNING ARRAY(SELECT b.number FROM etl_batches b
                    WHERE b.run_id = r.run_id AND b.state IN ('extracted', 'normalized'))
""")


def _advance(connection: Connection, claim: RunClaim, batch: RawBatch, lease: float) -> frozenset[int]:
    values = {
        "run_id": claim.run_id,
        "position": msgspec.json.encode(batch.position).decode(),
        "batches": claim.batches + bool(batch.extracted),
        "pages": batch.pages,
        "bytes": batch.size,
        "finished": batch.position.finished,
        "lease": lease,
    }
    return frozenset(connection.execute(_ADVANCE, values).scalar_one())
