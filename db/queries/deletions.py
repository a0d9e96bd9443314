"""Deleting what a complete run of a source did not meet any more: step by step, under the fence of the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec

from db.copy import copy_rows
from db.queries.closing import limits, tally_run
from db.queries.events import record_event
from db.statement import text
from db.states import ACTIVE_RUN
from etl.errors import LeaseLostError
from etl.records import Position
from etl.runs.deletions import (
    DEFAULT_MAX_DELETED,
    LOST,
    MOST_COUNTED,
    MOST_DELETED,
    DeletionCursor,
    Phase,
    Seen,
    too_many,
)
from etl.runs.outcome import Failure, Status

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from etl.records import RawBatch
    from etl.runs.outcome import RejectLimits
    from etl.runs.slices import RunClaim


def note_seen(connection: Connection, claim: RunClaim, batch: RawBatch) -> None:
    """Record the ids that a batch has met: of what is unchanged or rejected too."""
    ids = {record.external_id for record in batch.records if record.external_id is not None}
    lacking = len(batch.rejected) + sum(record.external_id is None for record in batch.records)
    copy_rows(
        connection,
        "seen_ids",
        ("run_id", "number", "external_id"),
        ((str(claim.run_id), claim.batches, external_id) for external_id in ids),
    )
    connection.execute(_NOTE, {"run_id": claim.run_id, "ids": len(ids), "lacking": lacking})


_NOTE = text("""
    UPDATE etl_runs SET ids_seen = ids_seen + :ids, ids_lacking = ids_lacking + :lacking WHERE run_id = :run_id
""")


@dataclass(frozen=True)
class DeletionStep:
    """Where a run is after a step, and how many batches it has. With the last one its extraction is over."""

    position: Position
    batches: int
    is_last: bool


def delete_some(connection: Connection, claim: RunClaim, lease: float) -> DeletionStep:
    """Count or delete some of the items that a run did not meet, store where it is and renew the lease: all or nothing.

    All batches of the run are closed. Safe to repeat when the outcome of the commit is unknown.

    Raises:
        LeaseLostError: the run is no longer ours, or it is over.
    """
    run = connection.execute(_LOCK, {"run_id": claim.run_id}).first()
    if run is None or run.token != claim.token or run.status != Status.RUNNING:
        raise LeaseLostError(f"run {claim.run_id} is no longer ours")
    position = msgspec.convert(run.position, Position)
    if position != claim.position or run.extracted_at is not None:
        return DeletionStep(position, run.batches, is_last=run.extracted_at is not None)
    verdict = _next(connection, claim, run, position)
    return _advance(connection, claim, run.batches, position, verdict, lease)


_LOCK = text("""
    SELECT batches, token, status, extracted_at, position, ids_seen, ids_lacking, accept_deletions FROM etl_runs
    WHERE run_id = :run_id FOR NO KEY UPDATE
""")


@dataclass(frozen=True)
class _Verdict:
    """What a step comes to: where to go on, None at the end; why not, if so; and how many items it has deleted."""

    cursor: DeletionCursor | None = None
    failure: Failure | None = None
    deleted: int = 0


def _next(connection: Connection, claim: RunClaim, run: Row[Any], position: Position) -> _Verdict:
    cursor = DeletionCursor.of(position)
    if cursor is None:
        return _begin(connection, claim, run)
    if run.ids_seen and not connection.execute(_IS_RECORDED, {"run_id": claim.run_id}).scalar_one():
        return _Verdict(failure=LOST)
    if cursor.phase is Phase.DELETING:
        return _delete(connection, claim, cursor)
    return _count(connection, claim, cursor, accepted=run.accept_deletions)


def _begin(connection: Connection, claim: RunClaim, run: Row[Any]) -> _Verdict:
    """Nothing is deleted after a run that fails by its records."""
    tally = tally_run(connection, claim.run_id)
    assert tally is not None
    outcome = replace(tally, extraction_over=True).outcome()
    if outcome is None or not tally.was_read(outcome):
        return _Verdict()
    recorded = connection.execute(_RECORDED, {"run_id": claim.run_id}).scalar_one()
    doubt = Seen(run.ids_seen, recorded, run.ids_lacking).doubt
    return _Verdict(failure=doubt) if doubt else _Verdict(DeletionCursor())


_RECORDED = text("SELECT count(*) FROM seen_ids WHERE run_id = :run_id")
# No id of the run is added any more: as long as one is there all are, since a crash leaves none.
_IS_RECORDED = text("SELECT EXISTS (SELECT 1 FROM seen_ids WHERE run_id = :run_id)")


def _count(connection: Connection, claim: RunClaim, cursor: DeletionCursor, *, accepted: bool) -> _Verdict:
    found = _walk(connection, claim, cursor, MOST_COUNTED)
    so_far = msgspec.structs.replace(
        cursor,
        after=found.last or cursor.after,
        active=cursor.active + found.active,
        missing=cursor.missing + len(found.missing),
    )
    if found.rows == MOST_COUNTED:
        return _Verdict(so_far)
    if not so_far.missing:
        return _Verdict()
    if failure := None if accepted else too_many(so_far, _most(claim)):
        return _Verdict(failure=failure)
    record_event(connection, claim.run_id, "deleting", missing=so_far.missing, of=so_far.active)
    return _Verdict(msgspec.structs.replace(so_far, phase=Phase.DELETING, after=""))


def _most(claim: RunClaim) -> RejectLimits:
    return limits(claim.config.get("max_deleted", DEFAULT_MAX_DELETED))


def _delete(connection: Connection, claim: RunClaim, cursor: DeletionCursor) -> _Verdict:
    found = _walk(connection, claim, cursor, MOST_DELETED)
    values = {"source_name": claim.source_name, "ids": found.missing}
    deleted = connection.execute(_DELETE, values).rowcount if found.missing else 0
    if found.rows < MOST_DELETED:
        return _Verdict(deleted=deleted)
    return _Verdict(msgspec.structs.replace(cursor, after=found.last), deleted=deleted)


def _walk(connection: Connection, claim: RunClaim, cursor: DeletionCursor, most: int) -> Row[Any]:
    """The next items of the source: how many, how many of them are served, and which of those were not met."""
    values = {"run_id": claim.run_id, "source_name": claim.source_name, "after": cursor.after, "most": most}
    return connection.execute(_WALK, values).one()


# Each id is looked up by itself: to hash all that were seen for each step would take far longer.
_WALK = text("""
    WITH walked AS MATERIALIZED (
        SELECT external_id, status FROM unified_items
        WHERE source_name = :source_name AND external_id > :after ORDER BY external_id LIMIT :most
    )
    SELECT count(*) AS rows, max(w.external_id) AS last, count(*) FILTER (WHERE w.status = 'active') AS active,
        coalesce(array_agg(w.external_id ORDER BY w.external_id)
            FILTER (WHERE w.status = 'active' AND met.found IS NULL), '{}') AS missing
    FROM walked w LEFT JOIN LATERAL (
        SELECT true AS found FROM seen_ids s
        WHERE s.run_id = :run_id AND s.external_id = w.external_id LIMIT 1) met ON true
""")
# Locked in the order in which loads lock them.
_DELETE = text("""
    WITH gone AS MATERIALIZED (
        SELECT id FROM unified_items
        WHERE source_name = :source_name AND external_id = ANY (:ids) AND status = 'active'
        ORDER BY external_id FOR UPDATE
    )
    UPDATE unified_items SET status = 'deleted', deleted_at = clock_timestamp(), updated_at = clock_timestamp(),
        change_xid = pg_current_xact_id()
    WHERE id = ANY (ARRAY(SELECT id FROM gone))
""")


def _advance(
    connection: Connection, claim: RunClaim, batches: int, position: Position, verdict: _Verdict, lease: float
) -> DeletionStep:
    cursor, failure = verdict.cursor, verdict.failure
    position = msgspec.structs.replace(position, cursor=None if cursor is None else msgspec.to_builtins(cursor))
    values = {
        "run_id": claim.run_id,
        "source_name": claim.source_name,
        "position": msgspec.json.encode(position).decode(),
        "over": cursor is None,
        "deleted": verdict.deleted,
        "code": failure and failure.code,
        "message": failure and failure.message,
        "number": batches,
        "lease": lease,
    }
    connection.execute(_ADVANCE, values)
    if verdict.deleted:
        connection.execute(_NOTE_DELETED, values)
    if failure is not None:
        record_event(connection, claim.run_id, failure.code, message=failure.message)
    return DeletionStep(position, batches + bool(verdict.deleted), is_last=cursor is None)


_ADVANCE = text("""
    UPDATE etl_runs
    SET position = CAST(:position AS jsonb), attempt = 0, items_deleted = items_deleted + :deleted,
        batches = batches + CASE WHEN :deleted > 0 THEN 1 ELSE 0 END, error_code = :code, error_message = :message,
        lease_expires_at = CASE WHEN NOT :over THEN clock_timestamp() + make_interval(secs => :lease) END,
        extracted_at = CASE WHEN :over THEN clock_timestamp() END,
        stage = CASE WHEN :over THEN 'loading' ELSE 'deleting' END
    WHERE run_id = :run_id
""")
# By batches the totals learn how many items there are.
_NOTE_DELETED = text("""
    INSERT INTO etl_batches (run_id, source_name, number, state, loaded_at, items_gained)
    VALUES (:run_id, :source_name, :number, 'loaded', clock_timestamp(), -:deleted)
""")


def forget_seen(connection: Connection, limit: int) -> int:
    """Remove ids that were seen by runs which have ended; how many."""
    return connection.execute(_FORGET, {"limit": limit}).rowcount


# From run to run by the index: to read the ids of a large run that goes on would take long each time.
_FORGET = text(f"""
    WITH RECURSIVE runs AS (
        (SELECT run_id FROM seen_ids ORDER BY run_id LIMIT 1)
        UNION ALL
        SELECT (SELECT s.run_id FROM seen_ids s WHERE s.run_id > runs.run_id ORDER BY s.run_id LIMIT 1)
        FROM runs WHERE runs.run_id IS NOT NULL
    ), ended AS (
        SELECT run_id FROM runs WHERE run_id IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM etl_runs r WHERE r.run_id = runs.run_id AND r.{ACTIVE_RUN})
    )
    DELETE FROM seen_ids WHERE ctid = ANY (ARRAY(
        SELECT s.ctid FROM ended JOIN seen_ids s USING (run_id) LIMIT :limit))
""")
