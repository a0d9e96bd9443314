"""Runs: made, claimed, released, ended and shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.events import record_event
from db.queries.processes import PROCESSES
from db.queries.run_locks import lock_run
from db.queries.versions import BOUND, Bound
from db.statement import text
from db.states import ACTIVE_RUN, OPEN_BATCH, WAITS_FOR_ROOM, has_room
from etl.errors import LeaseLostError, RunFinishedError, UnknownRunError
from etl.records import Position
from etl.runs.backfills import Span
from etl.runs.outcome import Failure, Lane, Stage, Status, Trigger
from etl.runs.polling import ServerHints
from etl.runs.replays import EVERYTHING, Scope
from etl.runs.schedule import QuietHours
from etl.runs.slices import MAX_OPEN_BATCHES, MAX_RUN_ATTEMPTS, Pause, RunClaim, Yielded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Row


@dataclass(frozen=True)
class NewRun:
    """A run to be queued."""

    run_id: UUID
    source_name: str
    source_type: str | None
    trigger: Trigger
    scheduled_for: datetime | None = None
    slots_missed: int = 0
    not_before: datetime | None = None


@dataclass(frozen=True)
class Queued:
    """A run that was queued. It is to be sent for now, unless it is due later or has to wait for its share."""

    run_id: UUID
    is_sent: bool


# A source is slow while nobody has seen it answer, after it did not in time, and after processes died of it. Files do
# answer.
IS_SLOW = "(misses + deaths > 0 OR (answered_at IS NULL AND config ? 'request'))"
_QUEUE = text(f"""
    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, scheduled_for, slots_missed,
                          not_before, slow, dispatched_at, checkpoint_before)
    SELECT :run_id, :source_name, :source_type, :trigger, 'queued', 'queued', :scheduled_for, :slots_missed,
           :not_before, slow,
           CASE WHEN CAST(:not_before AS timestamptz) IS NULL AND NOT slow THEN clock_timestamp() END,
           (SELECT value FROM etl_checkpoints WHERE source_name = :source_name)
    FROM (SELECT coalesce(bool_or({IS_SLOW}), false) AS slow FROM sources WHERE name = :source_name) s
    ON CONFLICT DO NOTHING
    RETURNING run_id, dispatched_at IS NOT NULL AS is_sent
""")


def queue_run(connection: Connection, run: NewRun) -> Queued | None:
    """Queue a run; None when the source has an active one, or this run or slot exists already."""
    row = connection.execute(_QUEUE, vars(run)).first()
    if row is None:
        return None
    record_event(connection, run.run_id, "queued", trigger=run.trigger)
    return Queued(row.run_id, row.is_sent)


_RECORD = text("""
    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, scheduled_for, slots_missed,
                          completed_at, error_code, error_message)
    VALUES (:run_id, :source_name, :source_type, :trigger, :status, 'done', :scheduled_for, :slots_missed,
            clock_timestamp(), :code, :message)
    ON CONFLICT DO NOTHING
""")


def record_run(connection: Connection, run: NewRun, status: Status, failure: Failure) -> None:
    """Write down a run that never started, and why."""
    values = {**vars(run), "status": status, "code": failure.code, "message": failure.message}
    if connection.execute(_RECORD, values).rowcount:
        record_event(connection, run.run_id, str(status), code=failure.code)


def active_runs(connection: Connection, source_names: list[str]) -> dict[str, UUID]:
    """The queued and running runs of these sources, by their names."""
    query = text(f"""
        SELECT source_name, run_id FROM etl_runs
        WHERE source_name = ANY (:names) AND lane = 'fetch' AND {ACTIVE_RUN}
    """)
    return {row.source_name: row.run_id for row in connection.execute(query, {"names": source_names})}


_CLAIM = text(f"""
    UPDATE etl_runs r
    SET status = 'running', stage = 'extracting', attempt = attempt + 1, token = token + 1, worker = :worker,
        lease_expires_at = clock_timestamp() + make_interval(secs => :lease),
        claimed_at = clock_timestamp(), started_at = coalesce(started_at, clock_timestamp()), not_before = NULL,
        source_version = coalesce(r.source_version, s.version),
        checkpoint_before = CASE WHEN NOT r.read_all
            THEN (SELECT value FROM etl_checkpoints c WHERE c.source_name = r.source_name) END
    FROM sources s
    WHERE r.run_id = :run_id AND s.name = r.source_name
      AND {ACTIVE_RUN} AND r.extracted_at IS NULL
      AND (r.not_before IS NULL OR r.not_before <= clock_timestamp())
      AND (r.lease_expires_at IS NULL OR r.lease_expires_at < clock_timestamp())
      AND r.attempt < :max_attempts
      -- a slow one that was not sent for has no share of the processes
      AND NOT (r.slow AND r.dispatched_at IS NULL)
      AND NOT {WAITS_FOR_ROOM}
    RETURNING r.run_id, r.source_name, r.lane, r.scope, r.token, r.attempt, r.batches, r.position,
        r.checkpoint_before, {BOUND} AS bound,
        r.scheduled_for, s.moved_to, s.moved_count, s.rest,
        num_nonnulls(s.not_before, s.rest, s.moved_to, s.gone_reason) > 0 AS noted,
        CASE WHEN s.not_before_reason = 'asked'
            THEN greatest(extract(epoch FROM s.not_before - clock_timestamp()), 0)::double precision ELSE 0 END
            AS postponed_for,
        r.slow, s.answered_at IS NOT NULL AS answered, s.misses, s.deaths,
        coalesce({PROCESSES}, :processes) <= 1 AS alone,
        ARRAY(SELECT b.number FROM etl_batches b
              WHERE b.run_id = r.run_id AND {OPEN_BATCH}) AS open_batches
""")


def claim_run(connection: Connection, run_id: UUID, worker: str, lease: float, processes: int = 2) -> RunClaim | None:
    """Take the lease of a run; None when it is not to be had: done, not due, or held by someone else.

    `processes` is how many worker processes there are if none has been seen yet.
    """
    values = {
        "run_id": run_id,
        "worker": worker,
        "lease": lease,
        "max_attempts": MAX_RUN_ATTEMPTS,
        "processes": processes,
    }
    row = connection.execute(_CLAIM, values).first()
    if row is None:
        return None
    record_event(connection, run_id, "claimed", attempt=row.attempt, worker=worker)
    return _claim_of(row)


def _claim_of(row: Row[Any]) -> RunClaim:
    position = msgspec.convert(row.position, Position) if row.position else Position()
    bound = Bound(*row.bound)
    return RunClaim(
        run_id=row.run_id,
        source_name=row.source_name,
        source_type=bound.config["type"],
        token=row.token,
        attempt=row.attempt,
        batches=row.batches,
        open_batches=frozenset(row.open_batches),
        position=position,
        checkpoint=row.checkpoint_before or {},
        config=bound.config,
        mapping_version=bound.mapping_version,
        mapped_since=bound.mapped_since,
        scheduled_for=row.scheduled_for,
        postponed_for=row.postponed_for,
        lane=Lane(row.lane),
        scope=msgspec.convert(row.scope or {}, Scope, strict=False) if row.lane == Lane.REPLAY else EVERYTHING,
        span=msgspec.convert(row.scope, Span) if row.lane == Lane.BACKFILL else None,
        hints=ServerHints(row.moved_to, row.moved_count, row.rest and msgspec.convert(row.rest, QuietHours), row.noted),
        slow=row.slow,
        answered=row.answered,
        misses=row.misses,
        deaths=row.deaths,
        alone=row.alone,
    )


def renew_run(connection: Connection, run_id: UUID, token: int, lease: float) -> None:
    """Extend the lease, under the fence.

    Raises:
        LeaseLostError: it is no longer ours.
    """
    query = text("""
        UPDATE etl_runs SET lease_expires_at = clock_timestamp() + make_interval(secs => :lease)
        WHERE run_id = :run_id AND token = :token AND status = 'running'
    """)
    done = connection.execute(query, {"run_id": run_id, "token": token, "lease": lease})
    if not done.rowcount:
        raise LeaseLostError(f"run {run_id} is no longer ours")


_RELEASE = text("""
    UPDATE etl_runs
    SET lease_expires_at = NULL, stage = :stage, claimed_at = NULL, dispatch_count = 0,
        attempt = CASE WHEN :progressed THEN 0 ELSE attempt END,
        failing_since = CASE WHEN NOT :progressed THEN failing_since END,
        position = coalesce(CAST(:position AS jsonb), position),
        not_before = CASE WHEN :wait > 0 THEN clock_timestamp() + make_interval(secs => :wait) END,
        dispatched_at = CASE WHEN :dispatch AND NOT slow THEN clock_timestamp() END
    WHERE run_id = :run_id AND token = :token AND status = 'running'
    RETURNING dispatched_at IS NOT NULL AS is_sent
""")


_STAGES = {Pause.TIME: Stage.QUEUED, Pause.ROOM: Stage.LOADING, Pause.WAIT: Stage.WAITING}


def release_run(connection: Connection, claim: RunClaim, end: Yielded) -> bool:
    """End a slice: give the lease back.

    Attempts count slices that died or got nowhere; one that progressed starts the count anew.

    Returns:
        Whether the caller is to send for the next slice: now, and without waiting for a share.
    """
    values = {
        "run_id": claim.run_id,
        "token": claim.token,
        "stage": _STAGES[end.pause],
        "wait": end.seconds,
        "dispatch": end.pause is Pause.TIME,
        "progressed": end.progressed,
        "position": None if end.position is None else msgspec.json.encode(end.position).decode(),
    }
    row = connection.execute(_RELEASE, values).first()
    return row is not None and bool(row.is_sent)


_END_EXTRACTION = text("""
    UPDATE etl_runs
    SET extracted_at = clock_timestamp(), lease_expires_at = NULL, stage = 'loading',
        error_code = :code, error_message = :message
    WHERE run_id = :run_id AND token = :token AND status = 'running' AND extracted_at IS NULL
""")


def fail_extraction(connection: Connection, claim: RunClaim, failure: Failure) -> None:
    """Extraction is over, with an error; what was stored before it still loads."""
    values = {"run_id": claim.run_id, "token": claim.token, "code": failure.code, "message": failure.message[:2000]}
    if connection.execute(_END_EXTRACTION, values).rowcount:
        record_event(connection, claim.run_id, "extraction_failed", code=failure.code, message=failure.message[:500])


def resume_extraction(connection: Connection, run_id: UUID) -> bool:
    """Mark a run that waits for its batches as dispatched again, once half of them are loaded, or all if it was read.

    One of a slow source waits for its share besides.
    """
    query = text(f"""
        UPDATE etl_runs r SET dispatched_at = clock_timestamp()
        WHERE run_id = :run_id AND status = 'running' AND stage = 'loading' AND extracted_at IS NULL
          AND lease_expires_at IS NULL AND dispatched_at IS NULL AND NOT slow
          AND {has_room("r", ":most")}
        RETURNING run_id
    """)
    return connection.execute(query, {"run_id": run_id, "most": MAX_OPEN_BATCHES // 2}).first() is not None


_SHOWN = """
    SELECT r.run_id, r.source_name, r.source_type, r.lane, r.trigger, r.status, r.stage, r.scope,
        r.position -> 'cursor' ->> 'window' AS window_number, r.attempt, r.scheduled_for,
        r.slots_missed, r.created_at, r.started_at, r.completed_at, r.not_before, r.pages, r.bytes,
        r.error_code, r.error_message, r.extracted_at, r.extracted_at IS NOT NULL AS extracted,
        coalesce(live.extracted, r.records_extracted) AS records_extracted,
        coalesce(live.inserted, r.records_inserted) AS records_inserted,
        coalesce(live.updated, r.records_updated) AS records_updated,
        coalesce(live.unchanged, r.records_unchanged) AS records_unchanged,
        coalesce(live.duplicate, r.records_duplicate) AS records_duplicate,
        coalesce(live.failed, r.records_failed) AS records_failed,
        coalesce(live.corrected, r.records_corrected) AS records_corrected, r.rows_skipped, r.items_deleted,
        coalesce(live.total, 0) AS batches_total, coalesce(live.closed, 0) AS batches_closed
    FROM etl_runs r
    LEFT JOIN LATERAL (
        SELECT sum(records_extracted)::bigint AS extracted, sum(records_inserted)::bigint AS inserted,
            sum(records_updated)::bigint AS updated, sum(records_unchanged)::bigint AS unchanged,
            sum(records_duplicate)::bigint AS duplicate, sum(records_failed)::bigint AS failed,
            sum(records_corrected)::bigint AS corrected,
            count(*) FILTER (WHERE state <> 'halved') AS total, count(*) FILTER (WHERE state = 'loaded') AS closed
        FROM etl_batches b WHERE b.run_id = r.run_id
    ) live ON r.status = 'running'
"""


def get_run(connection: Connection, run_id: UUID) -> Row[Any]:
    """One run, with live counts while it is running.

    Raises:
        UnknownRunError: there is none with this id.
    """
    row = connection.execute(text(_SHOWN + " WHERE r.run_id = :run_id"), {"run_id": run_id}).first()
    if row is None:
        raise UnknownRunError(f"there is no run {run_id}")
    return row


def find_runs(connection: Connection, run_ids: list[UUID]) -> list[Row[Any]]:
    """Those of these runs that there are, newest first."""
    query = text(_SHOWN + " WHERE r.run_id = ANY (:ids) ORDER BY r.created_at DESC, r.run_id DESC")
    return list(connection.execute(query, {"ids": run_ids}).all())


# What runs may be looked for by, each with the parameter of its name.
RUN_FILTERS = {
    "source_name": "r.source_name = :source_name",
    "status": "r.status = :status",
    "trigger": "r.trigger = :trigger",
    "lane": "r.lane = :lane",
    "error_code": "r.error_code = :error_code AND r.error_fingerprint IS NOT NULL",
    "error": "r.error_fingerprint = :error",
    "created_after": "r.created_at >= :created_after",
    "created_before": "r.created_at < :created_before",
}


def list_runs(
    connection: Connection, *, filters: Mapping[str, Any], before: tuple[datetime, UUID] | None, limit: int
) -> list[Row[Any]]:
    """Runs, newest first, from a keyset cursor on. `filters` are of `RUN_FILTERS`."""
    conditions = ["true", *(RUN_FILTERS[name] for name in filters)]
    values: dict[str, Any] = {"limit": limit, **filters}
    if before is not None:
        conditions.append("(r.created_at, r.run_id) < (:created_at, :run_id)")
        values |= {"created_at": before[0], "run_id": before[1]}
    query = f"{_SHOWN} WHERE {' AND '.join(conditions)} ORDER BY r.created_at DESC, r.run_id DESC LIMIT :limit"
    return list(connection.execute(text(query), values).all())


def check_cancellable(connection: Connection, run_id: UUID) -> None:
    """Lock a run that is to be cancelled.

    Raises:
        UnknownRunError, RunFinishedError: there is nothing to cancel.
    """
    status = lock_run(connection, run_id)
    if status is None:
        raise UnknownRunError(f"there is no run {run_id}")
    if status not in {Status.QUEUED, Status.RUNNING}:
        raise RunFinishedError(f"run {run_id} has already ended: {status}")
