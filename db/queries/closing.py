"""The end of runs. Counts come from the batches; the decision is `etl.runs.outcome`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from db.queries.cases import close_replaced, reasons
from db.queries.events import record_event
from db.queries.fields import look_at_fields
from db.queries.freshness import judge_size
from db.queries.run_locks import lock_run
from db.queries.sightings import IS_WATCHED, note_sighting
from db.queries.versions import BOUND
from db.statement import text
from db.states import ACTIVE_RUN, OPEN_BATCH
from etl.records import Checkpoint, Counts, Position
from etl.runs.fingerprint import fingerprint
from etl.runs.outcome import REJECTED, Failure, Lane, Marks, Outcome, RejectLimits, Status, Tally, left_behind
from etl.runs.reasons import told

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

_TALLY = f"""
    SELECT r.lane, r.extracted_at IS NOT NULL AS extraction_over, r.error_code, r.error_message,
        r.lane = 'fetch' AND EXISTS (
            SELECT 1 FROM etl_runs f
            WHERE f.source_name = r.source_name AND f.lane = 'backfill' AND f.started_at IS NOT NULL
              AND coalesce(f.completed_at > r.started_at - interval '1 min', true)) AS beside_backfill,
        coalesce(r.position, '{{}}'::jsonb) AS position, {BOUND} -> 0 AS config, {IS_WATCHED} AS is_watched,
        c.*
    FROM etl_runs r
    LEFT JOIN sources s ON s.name = r.source_name
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE {OPEN_BATCH}) AS open_batches,
            coalesce(sum(records_extracted), 0)::bigint AS extracted,
            coalesce(sum(records_inserted), 0)::bigint AS inserted,
            coalesce(sum(records_updated), 0)::bigint AS updated,
            coalesce(sum(records_unchanged), 0)::bigint AS unchanged,
            coalesce(sum(records_duplicate), 0)::bigint AS duplicate,
            coalesce(sum(records_failed), 0)::bigint AS failed,
            coalesce(sum(records_failed_again), 0)::bigint AS failed_again,
            coalesce(sum(records_corrected), 0)::bigint AS corrected,
            coalesce(sum(records_discarded), 0)::bigint AS discarded
        FROM etl_batches b WHERE b.run_id = r.run_id
    ) c
    WHERE r.run_id = :run_id AND {ACTIVE_RUN}
"""


def close_run(connection: Connection, run_id: UUID) -> Outcome | None:
    """End a run if it is time; None when it is not, or it has ended already."""
    tally = tally_run(connection, run_id)
    if tally is None or tally.outcome() is None:
        return None
    lock_run(connection, run_id)
    tally = tally_run(connection, run_id)
    outcome = None if tally is None else tally.outcome()
    if tally is None or outcome is None:
        return None
    _finish(connection, run_id, outcome, tally)
    return outcome


def end_run(connection: Connection, run_id: UUID, outcome: Outcome) -> bool:
    """End a run now, whatever stage it is in: cancelled, or given up. What is in flight then fails the fence."""
    lock_run(connection, run_id)
    tally = tally_run(connection, run_id)
    if tally is None:
        return False
    _finish(connection, run_id, outcome, tally)
    return True


def tally_run(connection: Connection, run_id: UUID) -> Tally | None:
    """Where an active run stands; None when it has ended."""
    row = connection.execute(text(_TALLY), {"run_id": run_id}).first()
    if row is None:
        return None
    counts = Counts(**{name: getattr(row, name) for name in Counts.__struct_fields__})
    failure = Failure(row.error_code, row.error_message) if row.error_code else None
    limit = limits((row.config or {}).get("max_rejected"))
    position = msgspec.convert(row.position, Position)
    lane = Lane(row.lane)
    may_lack = bool(counts.failed) and _may_lack(connection, run_id, lane)
    return Tally(
        row.extraction_over,
        row.open_batches,
        counts,
        failure,
        limit,
        position,
        lane,
        may_lack_new=may_lack,
        discarded=row.discarded,
        beside_backfill=row.beside_backfill,
        config=row.config or {},
        is_watched=row.is_watched,
    )


def limits(declared: float | dict[str, int] | None) -> RejectLimits:
    """A limit as it is declared: a percentage or a number of records."""
    if isinstance(declared, dict):
        return RejectLimits(records=declared["records"])
    return RejectLimits() if declared is None else RejectLimits(float(declared))


def _may_lack(connection: Connection, run_id: UUID, lane: Lane) -> bool:
    return lane is not Lane.FETCH or bool(connection.execute(_MAY_LACK, {"run_id": run_id}).scalar_one())


# An incremental run sees what has changed only, and that may be a record that is always bad.
_MAY_LACK = text("""
    SELECT EXISTS (SELECT 1 FROM unified_items i WHERE i.source_name = r.source_name) AND NOT r.read_all AND (
        (r.checkpoint_before ->> 'watermark') IS NOT NULL
        OR EXISTS (SELECT 1 FROM jsonb_each(coalesce(r.checkpoint_before #> '{kept,files}', '{}'::jsonb)) AS file
                   WHERE coalesce((file.value ->> 'appending')::boolean, false)))
    FROM etl_runs r WHERE r.run_id = :run_id
""")


_FINISH = text("""
    UPDATE etl_runs
    SET status = :status, stage = 'done', completed_at = clock_timestamp(), token = token + 1, lease_expires_at = NULL,
        not_before = NULL, extracted_at = coalesce(extracted_at, clock_timestamp()),
        checkpoint_after = CAST(:checkpoint AS jsonb),
        records_extracted = :extracted, records_inserted = :inserted, records_updated = :updated,
        records_unchanged = :unchanged, records_duplicate = :duplicate, records_failed = :failed,
        records_corrected = :corrected,
        error_code = :code, error_message = :message, error_fingerprint = :fingerprint
    WHERE run_id = :run_id
""")


# A source that was read to its end is not deadly.
_SURVIVED = text("""
    UPDATE sources s SET deaths = 0, death_cause = NULL FROM etl_runs r
    WHERE r.run_id = :run_id AND s.name = r.source_name AND s.deaths > 0
""")

_DROP = text(f"""
    UPDATE etl_batches SET state = 'dropped', lease_expires_at = NULL
    WHERE run_id = :run_id AND {OPEN_BATCH}
""")

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


def _explained(connection: Connection, run_id: UUID, failure: Failure | None) -> Failure | None:
    """A failure of rejected records with the reasons, and with what to write."""
    if failure is None or failure.code not in REJECTED:
        return failure
    found = reasons(connection, run_id)
    lack_id = any(reason.lacks_id for reason in found)
    records = connection.execute(_SOME_RECORDS, {"run_id": run_id}).scalars().all() if lack_id else ()
    explained = told(found, records)
    return Failure(failure.code, f"{failure.message}: {explained}"[:_MAX_MESSAGE] if explained else failure.message)


_MAX_MESSAGE = 2000
_SOME_RECORDS = text("""
    SELECT raw_payload FROM raw_data
    WHERE run_id = :run_id AND pg_column_size(raw_payload) < 8192 AND id BETWEEN
        (SELECT min(first_raw_id) FROM etl_batches WHERE run_id = :run_id)
        AND (SELECT max(last_raw_id) FROM etl_batches WHERE run_id = :run_id)
    ORDER BY id LIMIT 200
""")


def _finish(connection: Connection, run_id: UUID, outcome: Outcome, tally: Tally) -> None:
    left = left_behind(outcome, tally)
    if tally.counts.failed:
        close_replaced(connection, run_id)
    failure = _explained(connection, run_id, outcome.failure)
    fails, group = tally.fails(outcome), fingerprint(failure, tally.config) if failure else None
    values = {
        "run_id": run_id,
        "status": outcome.status,
        "code": failure and failure.code,
        "message": failure and failure.message,
        "fingerprint": group if outcome.status is Status.FAILED else None,
        "checkpoint": msgspec.json.encode(left).decode() if isinstance(left, Checkpoint) else None,
        **msgspec.structs.asdict(tally.counts),
    }
    connection.execute(_FINISH, values)
    if tally.open_batches:
        connection.execute(_DROP, {"run_id": run_id})
    if isinstance(left, Checkpoint):
        connection.execute(_PROMOTE, values)
    elif left is Marks.FORGOTTEN:
        connection.execute(_FORGET, values)
    if tally.was_read(outcome):
        connection.execute(_SURVIVED, values)
    if outcome.status is not Status.CANCELLED and tally.lane is Lane.FETCH:
        look_at_fields(connection, run_id)
        odd = judge_size(connection, run_id, tally.config, tally.counts.extracted) if tally.is_whole else None
        # Of a run that went well nothing is written, unless something was wrong with its source before.
        if fails or (outcome.status is not Status.SKIPPED and (odd or tally.is_watched)):
            note_sighting(connection, run_id, group if fails else None)
    record_event(connection, run_id, str(outcome.status), code=failure and failure.code)
