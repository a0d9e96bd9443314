"""Replays: batches over raw rows that are stored already, whichever runs fetched them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.events import record_event
from db.queries.processes import are_of_one_release
from db.statement import text
from db.states import ACTIVE_RUN, OPEN_BATCH
from etl.errors import AlreadyActiveError, LeaseLostError, NothingToReplayError, OlderReleaseError
from etl.records import Position
from etl.runs.outcome import Status
from etl.runs.replays import MOST_BYTES, MOST_RECORDS, MOST_WALKED, RawCursor, Scope

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection, Row

    from etl.runs.outcome import Trigger
    from etl.runs.slices import RunClaim


@dataclass(frozen=True)
class Taken:
    """The next batch of a replay: its id, None where no row was meant; the position after it, and what is open."""

    batch_id: int | None
    position: Position
    open_batches: frozenset[int]


_QUEUE = text("""
    INSERT INTO etl_runs (run_id, source_name, source_type, lane, trigger, status, stage, dispatched_at, scope)
    SELECT :run_id, name, type, 'replay', :trigger, 'queued', 'queued',
        CASE WHEN :is_sent THEN clock_timestamp() END, CAST(:scope AS jsonb)
    FROM sources WHERE name = :source_name
    ON CONFLICT DO NOTHING
    RETURNING run_id
""")
_ACTIVE = text(f"SELECT run_id FROM etl_runs WHERE source_name = :name AND lane = 'replay' AND {ACTIVE_RUN}")


def queue_replay(
    connection: Connection, run_id: UUID, source_name: str, trigger: Trigger, scope: Scope, *, is_sent: bool = True
) -> None:
    """Queue a replay of a source that there is; unless the caller sends for it (`is_sent`), a sweeper does.

    Raises:
        NothingToReplayError: nothing is stored of what is asked for.
        OlderReleaseError: a worker that knows no replays is alive, and would fetch instead.
        AlreadyActiveError: another one is active.
    """
    if not are_of_one_release(connection):
        raise OlderReleaseError("a process of another release is alive; ask again once all are upgraded")
    check_replayable(connection, source_name, scope)
    values = {
        "run_id": run_id,
        "source_name": source_name,
        "trigger": trigger,
        "scope": _json(scope),
        "is_sent": is_sent,
    }
    if connection.execute(_QUEUE, values).first() is None:
        active = connection.execute(_ACTIVE, {"name": source_name}).scalar()
        if active == run_id:
            # Whether it was queued was not known.
            return
        raise AlreadyActiveError(f"{source_name!r} has an active replay: {active}", active_run_id=active)
    record_event(connection, run_id, "queued", trigger=trigger)


def check_replayable(connection: Connection, source_name: str, scope: Scope) -> None:
    """Look at the first rows of a source; of very many, none of the first may be meant, and later ones may.

    Raises:
        NothingToReplayError: nothing is stored of what is asked for.
    """
    found = next_rows(connection, source_name, scope, RawCursor(), most=1)
    if found.is_end and not found.ids:
        raise NothingToReplayError(f"there is nothing to drive again: no stored record of {source_name!r} is meant")


def older_runs(connection: Connection, claim: RunClaim) -> list[UUID]:
    """The runs of the source that still fetch for a mapping before that of the claim."""
    values = {"name": claim.source_name, "mapping_version": claim.mapping_version}
    return list(connection.execute(_OLDER, values).scalars())


_OLDER = text("""
    SELECT r.run_id FROM etl_runs r
    JOIN source_versions v ON v.source_name = r.source_name AND v.version = r.source_version
    WHERE r.source_name = :name AND r.lane <> 'replay' AND r.status = 'running'
      AND v.mapping_version < :mapping_version
""")


def take_next(connection: Connection, claim: RunClaim, lease: float) -> Taken:
    """Make the next batch, store the position after it and renew the lease: all or nothing.

    Safe to repeat when the outcome of the commit is unknown.

    Raises:
        LeaseLostError: the run is no longer ours, or it is over.
    """
    run = connection.execute(_LOCK, {"run_id": claim.run_id}).first()
    if run is None or run.token != claim.token or run.status != Status.RUNNING:
        raise LeaseLostError(f"run {claim.run_id} is no longer ours")
    if run.batches > claim.batches or run.extracted_at is not None:
        position = msgspec.convert(run.position, Position)
        return Taken(_stored(connection, claim), position, _open(connection, claim))
    cursor = RawCursor.of(claim.position) or RawCursor()
    # What is fetched from here on is read by the present mapping, and need not be driven again.
    until = cursor.until or claim.scope.until or run.now
    scope = msgspec.structs.replace(claim.scope, until=until)
    found = next_rows(connection, claim.source_name, scope, cursor, MOST_RECORDS)
    batch_id = _insert(connection, claim, found) if found.ids else None
    after = RawCursor(cursor.after if found.last is None else found.last, until)
    position = Position(cursor=msgspec.to_builtins(after), finished=found.is_end)
    values = {"run_id": claim.run_id, "position": _json(position), "finished": position.finished, "lease": lease}
    connection.execute(_ADVANCE, values | {"batches": claim.batches + bool(found.ids)})
    return Taken(batch_id, position, _open(connection, claim))


_LOCK = text("""
    SELECT batches, token, status, extracted_at, position, clock_timestamp() AS now FROM etl_runs
    WHERE run_id = :run_id FOR NO KEY UPDATE
""")
_ADVANCE = text("""
    UPDATE etl_runs
    SET position = CAST(:position AS jsonb), batches = :batches, attempt = 0,
        lease_expires_at = CASE WHEN NOT :finished THEN clock_timestamp() + make_interval(secs => :lease) END,
        extracted_at = CASE WHEN :finished THEN clock_timestamp() END,
        stage = CASE WHEN :finished THEN 'loading' ELSE stage END
    WHERE run_id = :run_id
""")


def _stored(connection: Connection, claim: RunClaim) -> int | None:
    query = text("SELECT batch_id FROM etl_batches WHERE run_id = :run_id AND number = :number AND part = ''")
    found: int | None = connection.execute(query, {"run_id": claim.run_id, "number": claim.batches}).scalar()
    return found


def _open(connection: Connection, claim: RunClaim) -> frozenset[int]:
    query = text(f"SELECT number FROM etl_batches WHERE run_id = :run_id AND {OPEN_BATCH}")
    return frozenset(connection.execute(query, {"run_id": claim.run_id}).scalars())


def next_rows(connection: Connection, source_name: str, scope: Scope, cursor: RawCursor, most: int) -> Row[Any]:
    """The raw ids that follow (`ids`), and the span of time (`since`, `until`) in which they were stored.

    `last` is the last row that was looked at, and `is_end` says that none follows: on the way there may be many that
    are not meant.
    """
    conditions, values = _chosen(scope)
    # By name and id, so that the rows of other sources are not passed on the way. Each is looked up among the items by
    # itself: to hash all items of a large source for each batch takes far longer.
    query = text(f"""
        SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off;
        WITH walked AS MATERIALIZED (
            SELECT p.id, p.ingested_at, p.run_id, p.source_name, p.source_id, pg_column_size(p.raw_payload) AS size
            FROM raw_data p
            WHERE p.source_name = :source_name AND p.id > :after AND {_span(scope)}
            ORDER BY p.source_name, p.id LIMIT :walked
        ), met AS MATERIALIZED (
            SELECT *, sum(size) OVER (ORDER BY id) - size AS before FROM (
                SELECT p.id, p.ingested_at, p.size FROM walked p WHERE {" AND ".join(conditions)}
                ORDER BY p.id LIMIT :most) p
        ), taken AS (
            SELECT coalesce(array_agg(id ORDER BY id), '{{}}') AS ids, max(id) AS last,
                min(ingested_at) AS since, max(ingested_at) AS until
            FROM met WHERE before < :bytes
        ), passed AS (
            SELECT max(id) AS last, count(*) AS rows FROM walked
        )
        SELECT t.ids, t.since, t.until, is_cut, passed.rows < :walked AND NOT is_cut AS is_end,
            CASE WHEN is_cut THEN t.last ELSE passed.last END AS last
        FROM taken t, passed, LATERAL (
            SELECT cardinality(t.ids) = :most OR (SELECT count(*) FROM met) > cardinality(t.ids) AS is_cut) cut
    """)
    values |= {"source_name": source_name, "after": cursor.after, "most": most, "bytes": MOST_BYTES}
    return connection.execute(query, values | {"walked": MOST_WALKED}).one()


def _span(scope: Scope) -> str:
    """Of one run the rows between its first and its last."""
    if scope.run_id is None:
        return "true"
    return """
        p.id BETWEEN (SELECT min(first_raw_id) FROM etl_batches WHERE run_id = CAST(:run_id AS uuid))
            AND (SELECT max(last_raw_id) FROM etl_batches WHERE run_id = CAST(:run_id AS uuid))
    """


def _chosen(scope: Scope) -> tuple[list[str], dict[str, Any]]:
    conditions, values = ["true"], dict[str, Any]()
    for name, condition in _CONDITIONS.items():
        if (value := getattr(scope, name)) is not None:
            conditions.append(condition)
            values[name] = value
    if scope.cases is None:
        conditions += [_IS_NEWEST, _IS_VALID] + ([_IS_LOADED] if scope.run_id is None else [])
    else:
        conditions.append(f"""
            p.id = ANY (ARRAY(SELECT r.raw_data_id FROM rejected_records r
                WHERE r.source_name = :source_name AND r.state = 'open' AND r.raw_data_id > :after
                  AND {" AND ".join(_of_cases(scope, values))} ORDER BY r.raw_data_id LIMIT :most))""")
    return conditions, values


# A record of which a newer one is served would change nothing, and one that was erased is not to come back.
_IS_NEWEST = """NOT EXISTS (
    SELECT 1 FROM unified_items i
    WHERE i.source_name = p.source_name AND i.external_id = p.source_id
      AND (i.raw_data_id > p.id OR i.erased_at IS NOT NULL))"""
# What was taken back by its source, or put away by somebody, is not to be served; unless it is, or stands open again.
_IS_VALID = """NOT EXISTS (
    SELECT 1 FROM rejected_records r
    WHERE r.source_name = p.source_name AND r.raw_data_id = p.id AND r.state IN ('superseded', 'discarded')
      AND NOT EXISTS (SELECT 1 FROM rejected_records o WHERE o.source_name = p.source_name AND o.raw_data_id = p.id
                      AND o.state = 'open')
      AND NOT EXISTS (SELECT 1 FROM unified_items i WHERE i.source_name = p.source_name AND i.external_id = p.source_id
                      AND i.raw_data_id = p.id))"""
# What a run stored and did not load has been fetched again since, or is what it was before.
_IS_LOADED = """NOT EXISTS (
    SELECT 1 FROM etl_batches b
    WHERE b.source_name = p.source_name AND b.run_id = p.run_id AND b.state = 'dropped'
      AND p.id BETWEEN b.first_raw_id AND b.last_raw_id)"""
_CONDITIONS = {
    "since": "p.ingested_at >= :since",
    "until": "p.ingested_at < :until",
    "run_id": "p.run_id = CAST(:run_id AS uuid)",
    "every": "abs(hashint8(p.id)::bigint) % :every = 0",
}


def _of_cases(scope: Scope, values: dict[str, Any]) -> list[str]:
    conditions = ["true"]
    for name, condition in (("ids", "r.id = ANY (:ids)"), ("field", "r.field = :field"), ("rule", "r.rule = :rule")):
        if (value := getattr(scope.cases, name)) is not None:
            conditions.append(condition)
            values[name] = value
    return conditions


_INSERT = text("""
    INSERT INTO etl_batches (run_id, source_name, number, first_raw_id, last_raw_id, raw_ids, raw_since, raw_until,
                             low, state, dispatched_at, records_extracted)
    VALUES (:run_id, :source_name, :number, :first, :last, :ids, :since, :until, true, 'extracted', clock_timestamp(),
            :extracted)
    RETURNING batch_id
""")


def _insert(connection: Connection, claim: RunClaim, found: Row[Any]) -> int:
    values = {
        "run_id": claim.run_id,
        "source_name": claim.source_name,
        "number": claim.batches,
        "first": found.ids[0],
        "last": found.ids[-1],
        "ids": found.ids,
        "since": found.since,
        "until": found.until,
        "extracted": len(found.ids),
    }
    return int(connection.execute(_INSERT, values).scalar_one())


def _json(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()
