"""What the sweeper asks: who died, what was never delivered, what can be closed. Any number may ask at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.closing import end_run
from db.queries.counters import TAKEOVERS, add_count
from db.queries.events import record_event
from db.queries.run_locks import lock_run
from db.statement import text
from db.states import ACTIVE_RUN, OPEN_BATCH, WAITS_FOR_ROOM, has_room
from etl.runs.messages import BatchMessage, ExtractMessage
from etl.runs.outcome import BatchState, Failure, Outcome, Status
from etl.runs.slices import MAX_OPEN_BATCHES, MAX_RUN_ATTEMPTS

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

# Work per pass and kind; a backlog is worked off over several passes.
LIMIT = 200
# Seconds before a message counts as lost; doubles with every time it is sent again.
GAP = 10

# Of a claim: the server was away since, and whoever held it could not say so. That is no fault of the run.
_SERVER_WAS_AWAY = "coalesce(claimed_at < pg_postmaster_start_time(), false)"

_EXPIRED_RUNS = text(f"""
    UPDATE etl_runs r
    SET token = token + 1, lease_expires_at = NULL, stage = 'waiting', dispatched_at = NULL, claimed_at = NULL,
        attempt = CASE WHEN {_SERVER_WAS_AWAY} THEN greatest(attempt - 1, 0) ELSE attempt END,
        not_before = clock_timestamp() + make_interval(secs => least(2 ^ attempt, 60) * (0.5 + random() / 2))
    FROM (SELECT run_id FROM etl_runs
          WHERE status = 'running' AND lease_expires_at < clock_timestamp()
            AND (attempt < :max_attempts OR {_SERVER_WAS_AWAY})
          ORDER BY lease_expires_at LIMIT :limit FOR UPDATE SKIP LOCKED) dead
    WHERE r.run_id = dead.run_id
    RETURNING r.run_id, r.attempt, r.worker
""")

_EXPIRED_BATCHES = text(f"""
    UPDATE etl_batches b
    SET token = token + 1, lease_expires_at = NULL, dispatched_at = NULL, claimed_at = NULL,
        not_before = clock_timestamp() + make_interval(secs => least(2 ^ attempt, 30) * (0.25 + random() / 4))
    FROM (SELECT batch_id FROM etl_batches
          WHERE {OPEN_BATCH} AND lease_expires_at < clock_timestamp()
          ORDER BY lease_expires_at LIMIT :limit FOR UPDATE SKIP LOCKED) dead
    WHERE b.batch_id = dead.batch_id
    RETURNING b.batch_id, b.run_id, b.attempt
""")


def take_over_runs(connection: Connection) -> int:
    """Free the runs that dead workers held, but for those that are to be given up.

    Returns:
        How many leases had expired.
    """
    runs = connection.execute(_EXPIRED_RUNS, {"limit": LIMIT, "max_attempts": MAX_RUN_ATTEMPTS}).all()
    for row in runs:
        record_event(connection, row.run_id, "lease_expired", attempt=row.attempt, worker=row.worker)
    add_count(connection, TAKEOVERS, "", len(runs))
    return len(runs)


_WORN_OUT = f"""
    SELECT run_id, attempt, worker FROM etl_runs
    WHERE status = 'running' AND lease_expires_at < clock_timestamp() AND attempt >= :max_attempts
      AND NOT {_SERVER_WAS_AWAY}
"""


def worn_out_runs(connection: Connection) -> list[UUID]:
    """The runs that dead workers held, too many in a row without progress."""
    query = text(f"{_WORN_OUT} ORDER BY lease_expires_at LIMIT :limit")
    return list(connection.execute(query, {"limit": LIMIT, "max_attempts": MAX_RUN_ATTEMPTS}).scalars())


def give_up_run(connection: Connection, run_id: UUID) -> bool:
    """End a run that is worn out; False when it is not any more."""
    # Whoever ends a run has it alone before locking its row.
    lock_run(connection, run_id)
    query = text(f"{_WORN_OUT} AND run_id = :run_id")
    row = connection.execute(query, {"run_id": run_id, "max_attempts": MAX_RUN_ATTEMPTS}).first()
    if row is None:
        return False
    record_event(connection, run_id, "lease_expired", attempt=row.attempt, worker=row.worker)
    message = f"{row.attempt} workers in a row died or stopped answering while they extracted it"
    return end_run(connection, run_id, Outcome(Status.FAILED, Failure("worker_lost", message)))


def take_over_batches(connection: Connection) -> int:
    """The same for batches. No event is written here: it would lock the run after the batch, against the order."""
    taken = len(connection.execute(_EXPIRED_BATCHES, {"limit": LIMIT}).all())
    add_count(connection, TAKEOVERS, "", taken)
    return taken


# A message is sent again when it must have left the queue: a later one was taken, or the queue is empty. Those sent in
# one pass bear one time, since their order in the queue is not known.
_UNDELIVERED = """
    (dispatched_at IS NULL
     OR (claimed_at IS NULL
         AND dispatched_at < clock_timestamp() - make_interval(secs => :gap * 2 ^ least(dispatch_count, 10))
         AND CASE WHEN {low} THEN :low_empty ELSE :queue_empty OR dispatched_at < (
             SELECT max(dispatched_at) FROM {table} WHERE claimed_at IS NOT NULL AND NOT ({low})) END))
"""

_DUE_RUNS = text(f"""
    UPDATE etl_runs r
    SET dispatched_at = statement_timestamp(), claimed_at = NULL,
        dispatch_count = dispatch_count + CASE WHEN dispatched_at IS NULL THEN 0 ELSE 1 END
    FROM (SELECT run_id FROM etl_runs q
          WHERE {ACTIVE_RUN} AND extracted_at IS NULL AND lease_expires_at IS NULL
            -- those of slow sources are sent for as there is room
            AND NOT (slow AND dispatched_at IS NULL) AND NOT {WAITS_FOR_ROOM}
            AND (not_before IS NULL OR not_before <= clock_timestamp())
            AND (stage <> 'loading' OR {has_room("q", ":max_open")})
            AND {_UNDELIVERED.format(table="etl_runs", low="lane <> 'fetch'")}
          ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED) due
    WHERE r.run_id = due.run_id
    RETURNING r.run_id, r.lane <> 'fetch' AS low
""")

_DUE_BATCHES = text(f"""
    UPDATE etl_batches b
    SET dispatched_at = statement_timestamp(), claimed_at = NULL,
        dispatch_count = dispatch_count + CASE WHEN dispatched_at IS NULL THEN 0 ELSE 1 END
    FROM (SELECT batch_id FROM etl_batches
          WHERE {OPEN_BATCH} AND lease_expires_at IS NULL
            AND (not_before IS NULL OR not_before <= clock_timestamp())
            AND {_UNDELIVERED.format(table="etl_batches", low="low")}
          ORDER BY batch_id LIMIT :limit FOR UPDATE SKIP LOCKED) due
    WHERE b.batch_id = due.batch_id
    RETURNING b.batch_id, b.state, b.low
""")


def due_runs(connection: Connection, *, queue_empty: bool, low_empty: bool = True) -> list[ExtractMessage]:
    """Runs whose message was never sent, or got lost on the way; they are marked as sent now.

    `low_empty` says so of the queue of what others go before.
    """
    values = {"limit": LIMIT, "gap": GAP, "queue_empty": queue_empty, "low_empty": low_empty}
    rows = connection.execute(_DUE_RUNS, values | {"max_open": MAX_OPEN_BATCHES - 1}).all()
    return [ExtractMessage(row.run_id, low=row.low) for row in rows]


def due_batches(connection: Connection, *, queue_empty: bool, low_empty: bool = True) -> list[BatchMessage]:
    """The same for batches."""
    values = {"limit": LIMIT, "gap": GAP, "queue_empty": queue_empty, "low_empty": low_empty}
    rows = connection.execute(_DUE_BATCHES, values).all()
    return [BatchMessage(row.batch_id, normalized=row.state == BatchState.NORMALIZED, low=row.low) for row in rows]


def unsend_runs(connection: Connection, messages: list[ExtractMessage]) -> None:
    """Their messages did not go out: they are due again at once."""
    query = text("UPDATE etl_runs SET dispatched_at = NULL WHERE run_id = ANY (:ids) AND claimed_at IS NULL")
    connection.execute(query, {"ids": [message.run_id for message in messages]})


def unsend_batches(connection: Connection, messages: list[BatchMessage]) -> None:
    """The same for batches."""
    query = text("UPDATE etl_batches SET dispatched_at = NULL WHERE batch_id = ANY (:ids) AND claimed_at IS NULL")
    connection.execute(query, {"ids": [message.batch_id for message in messages]})


def unclosed_runs(connection: Connection) -> list[UUID]:
    """The runs that are over and that nobody closed."""
    query = text(f"""
        SELECT run_id FROM etl_runs r
        WHERE status = 'running' AND extracted_at IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM etl_batches b WHERE b.run_id = r.run_id AND {OPEN_BATCH})
        ORDER BY extracted_at LIMIT :limit
    """)
    return list(connection.execute(query, {"limit": LIMIT}).scalars())
