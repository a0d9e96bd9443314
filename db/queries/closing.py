"""The end of runs. Counts come from the batches; the decision is `etl.outcome`'s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.events import record_event
from db.queries.turns import own_run
from db.statement import text
from etl.outcome import Failure, Outcome, Status, judge, must_stop
from etl.records import Checkpoint, Counts, Kept, Position

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

DEFAULT_MAX_REJECTED = 50.0


@dataclass(frozen=True)
class Tally:
    """Where a running run stands."""

    extraction_over: bool
    open_batches: int
    counts: Counts
    failure: Failure | None
    max_rejected: float
    position: dict[str, Any]

    def outcome(self) -> Outcome | None:
        """How the run ends, None when it goes on."""
        stop = must_stop(self.counts, self.max_rejected)
        if stop:
            return Outcome(Status.FAILED, stop)
        if self.extraction_over and not self.open_batches:
            return judge(self.counts, self.failure, self.max_rejected)
        return None


_TALLY = """
    SELECT r.extracted_at IS NOT NULL AS extraction_over, r.error_code, r.error_message,
        coalesce(r.position, '{}'::jsonb) AS position, s.config ->> 'max_rejected' AS max_rejected, c.*
    FROM etl_runs r
    LEFT JOIN sources s ON s.name = r.source_name
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE state IN ('extracted', 'normalized')) AS open_batches,
            coalesce(sum(records_extracted), 0)::bigint AS extracted,
            coalesce(sum(records_inserted), 0)::bigint AS inserted,
            coalesce(sum(records_updated), 0)::bigint AS updated,
            coalesce(sum(records_unchanged), 0)::bigint AS unchanged,
            coalesce(sum(records_duplicate), 0)::bigint AS duplicate,
            coalesce(sum(records_failed), 0)::bigint AS failed
        FROM etl_batches b WHERE b.run_id = r.run_id
    ) c
    WHERE r.run_id = :run_id AND r.status IN ('queued', 'running')
"""


def close_run(connection: Connection, run_id: UUID) -> Outcome | None:
    """End a run if it is time; None when it is not, or it has ended already."""
    tally = _tally(connection, run_id)
    if tally is None or tally.outcome() is None:
        return None
    own_run(connection, run_id)
    tally = _tally(connection, run_id)
    outcome = None if tally is None else tally.outcome()
    if tally is None or outcome is None:
        return None
    _finish(connection, run_id, outcome, tally)
    return outcome


def end_run(connection: Connection, run_id: UUID, outcome: Outcome) -> bool:
    """End a run now, whatever stage it is in: cancelled, or given up. What is in flight then fails the fence."""
    own_run(connection, run_id)
    tally = _tally(connection, run_id)
    if tally is None:
        return False
    _finish(connection, run_id, outcome, tally)
    return True


def _tally(connection: Connection, run_id: UUID) -> Tally | None:
    row = connection.execute(text(_TALLY), {"run_id": run_id}).first()
    if row is None:
        return None
    counts = Counts(row.extracted, row.inserted, row.updated, row.unchanged, row.duplicate, row.failed)
    failure = Failure(row.error_code, row.error_message) if row.error_code else None
    limit = DEFAULT_MAX_REJECTED if row.max_rejected is None else float(row.max_rejected)
    return Tally(row.extraction_over, row.open_batches, counts, failure, limit, row.position)


_FINISH = text("""
    UPDATE etl_runs
    SET status = :status, stage = 'done', completed_at = clock_timestamp(), token = token + 1, lease_expires_at = NULL,
        not_before = NULL, extracted_at = coalesce(extracted_at, clock_timestamp()),
        checkpoint_after = CAST(:checkpoint AS jsonb),
        records_extracted = :extracted, records_inserted = :inserted, records_updated = :updated,
        records_unchanged = :unchanged, records_duplicate = :duplicate, records_failed = :failed,
        error_code = :code, error_message = :message
    WHERE run_id = :run_id
""")


def _finish(connection: Connection, run_id: UUID, outcome: Outcome, tally: Tally) -> None:
    checkpoint = _checkpoint(outcome, tally)
    failure = outcome.failure
    values = {
        "run_id": run_id,
        "status": outcome.status,
        "code": failure and failure.code,
        "message": failure and failure.message,
        "checkpoint": None if checkpoint is None else msgspec.json.encode(checkpoint).decode(),
        **msgspec.structs.asdict(tally.counts),
    }
    connection.execute(_FINISH, values)
    if tally.open_batches:
        connection.execute(_DROP, {"run_id": run_id})
    if checkpoint is not None:
        connection.execute(_PROMOTE, values)
    elif tally.counts.extracted:
        connection.execute(_FORGET, values)
    if outcome.status in {Status.SUCCESS, Status.PARTIAL} and not tally.failure:
        connection.execute(_SURVIVED, values)
    record_event(connection, run_id, str(outcome.status), code=failure and failure.code)


# A source that was read to its end is not deadly.
_SURVIVED = text("""
    UPDATE sources s SET deaths = 0, death_cause = NULL FROM etl_runs r
    WHERE r.run_id = :run_id AND s.name = r.source_name AND s.deaths > 0
""")

_DROP = text("""
    UPDATE etl_batches SET state = 'dropped', lease_expires_at = NULL
    WHERE run_id = :run_id AND state IN ('extracted', 'normalized')
""")


def _checkpoint(outcome: Outcome, tally: Tally) -> Checkpoint | None:
    """What the next run starts from, None to leave the checkpoint as it is.

    A run whose extraction broke off leaves it too: pages that were not read may hold older cursor values. After
    rejects what is unchanged is not skipped next time, or the source would look well again; only the watermark and
    files that grow go on where they ended.
    """
    if outcome.status not in {Status.SUCCESS, Status.PARTIAL} or tally.failure:
        return None
    position = msgspec.convert(tally.position, Position)
    kept = position.kept or Kept()
    if outcome.status is Status.PARTIAL:
        kept = Kept(files={name: mark for name, mark in kept.files.items() if mark.appending})
    if position.watermark is None and position.kept is None:
        return None
    return Checkpoint(
        kind="watermark" if position.watermark is not None else "kept",
        config=position.config,
        mapping=position.mapping,
        watermark=position.watermark,
        kept=kept,
    )


# A run that stored something and did not end well has changed what is served: what the run before it knew of an answer
# or a whole file no longer says that nothing is new.
_FORGET = text("""
    UPDATE etl_checkpoints c
    SET value = jsonb_set(c.value, '{kept}', jsonb_build_object('files', (
        SELECT coalesce(jsonb_object_agg(file.key, file.value), '{}'::jsonb)
        FROM jsonb_each(coalesce(c.value #> '{kept,files}', '{}'::jsonb)) AS file
        WHERE coalesce((file.value ->> 'appending')::boolean, false))))
    FROM etl_runs r
    WHERE r.run_id = :run_id AND c.source_name = r.source_name AND c.value ? 'kept'
""")

_PROMOTE = text("""
    INSERT INTO etl_checkpoints AS c (source_name, source_type, kind, version, value, run_id)
    SELECT source_name, source_type, CAST(:checkpoint AS jsonb) ->> 'kind', 1, CAST(:checkpoint AS jsonb), run_id
    FROM etl_runs WHERE run_id = :run_id
    ON CONFLICT (source_name) DO UPDATE SET kind = excluded.kind, version = c.version + 1, value = excluded.value,
        run_id = excluded.run_id, updated_at = clock_timestamp()
    WHERE c.value IS DISTINCT FROM excluded.value
""")
