"""Batches and slices that fail: when that counts against them, and what the database itself is to blame for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.errors import TROUBLES
from db.statement import text
from db.states import OPEN_BATCH, one_of
from etl.runs.slices import MAX_RUN_ATTEMPTS

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from db.queries.batches import BatchClaim
    from etl.runs.slices import RunClaim

# For so long a batch may fail of the database itself before that counts against it.
EXCUSED_MINUTES = 15
# That another source's batch, just now, failed of what the server lacks: then it is not this batch.
OTHERS_FAIL = f"""EXISTS (
    SELECT 1 FROM etl_batches other
    WHERE other.source_name <> b.source_name AND other.{OPEN_BATCH} AND other.{one_of("failure", TROUBLES)}
      -- waiting for its next attempt, or at it
      AND coalesce(other.not_before, other.claimed_at) > clock_timestamp() - interval '2 minutes')"""

# That a batch or run `b` is not to blame for what it failed of.
_EXCUSED = f"""(
    coalesce(b.failing_since, clock_timestamp()) > clock_timestamp() - interval '{EXCUSED_MINUTES} minutes'
    OR (:failure IN ({", ".join(map(repr, TROUBLES))}) AND {OTHERS_FAIL}))"""

_RELEASE = text(f"""
    UPDATE etl_batches b
    SET lease_expires_at = NULL, claimed_at = NULL, dispatched_at = NULL,
        attempt = CASE WHEN excused THEN attempt - 1 ELSE attempt END,
        -- while it fails of the database the pauses grow, to a minute
        not_before = clock_timestamp() + make_interval(secs => greatest(:wait,
            least(60, extract(epoch FROM clock_timestamp() - coalesce(b.failing_since, clock_timestamp())) / 4))),
        failing_since = CASE WHEN CAST(:failure AS text) IS NOT NULL
            THEN coalesce(b.failing_since, clock_timestamp()) END,
        failure = :failure
    FROM (SELECT CAST(:failure AS text) IS NOT NULL AND {_EXCUSED} AS excused
          FROM etl_batches b WHERE b.batch_id = :batch_id) judged
    -- who repeats this because no answer came finds nothing to do
    WHERE batch_id = :batch_id AND token = :token AND state = :state AND claimed_at IS NOT NULL
""")


def release_batch(connection: Connection, claim: BatchClaim, wait: float, failure: str | None) -> None:
    """Give the lease back after an error.

    Args:
        connection: of the transaction.
        claim: what is given back.
        wait: seconds until the next attempt.
        failure: what was wrong with the database, as PostgreSQL or our error codes it. Then the attempt does not
            count, while others fail of the same or for fifteen minutes; None for an error of the batch's own.
    """
    values = {"batch_id": claim.batch_id, "token": claim.token, "state": claim.state, "wait": wait}
    connection.execute(_RELEASE, values | {"failure": failure})


def return_attempts(connection: Connection, owed: list[tuple[int, str]]) -> None:
    """Those who claimed these batches, in these states, lived on, and lost them to no fault of theirs."""
    query = text("""
        UPDATE etl_batches b SET attempt = attempt - 1
        FROM unnest(CAST(:ids AS bigint[]), CAST(:states AS text[])) AS owed(batch_id, state)
        WHERE b.batch_id = owed.batch_id AND b.state = owed.state AND attempt > 0
    """)
    connection.execute(query, {"ids": [one for one, _ in owed], "states": [str(state) for _, state in owed]})


_GIVE_BACK = text(f"""
    UPDATE etl_runs r
    SET stage = 'waiting', claimed_at = NULL, dispatched_at = NULL, dispatch_count = 0,
        not_before = clock_timestamp() + make_interval(secs => :wait),
        attempt = CASE WHEN excused THEN attempt - 1 ELSE attempt END,
        -- one that is worn out is given up as if its worker had died
        lease_expires_at = CASE WHEN NOT excused AND attempt >= :most THEN clock_timestamp() END,
        failing_since = coalesce(r.failing_since, clock_timestamp())
    FROM (SELECT {_EXCUSED} AS excused
          FROM etl_runs b WHERE b.run_id = :run_id) judged
    WHERE run_id = :run_id AND token = :token AND status = 'running' AND extracted_at IS NULL
      AND claimed_at IS NOT NULL
""")


def give_back_run(connection: Connection, claim: RunClaim, wait: float, failure: str) -> None:
    """End a slice that failed of the database, to be repeated after so many seconds; excused as batches are."""
    values = {"run_id": claim.run_id, "token": claim.token, "wait": wait, "failure": failure, "most": MAX_RUN_ATTEMPTS}
    connection.execute(_GIVE_BACK, values)


@dataclass(frozen=True)
class Failing:
    """Batches that fail of the database: how many, since when, and of what (PostgreSQL's code, or ours)."""

    batches: int
    since: datetime
    failure: str


def failing_batches(connection: Connection) -> Failing | None:
    """What keeps batches from being written: at once if the server says so itself, else after a minute."""
    query = text(f"""
        SELECT count(*) AS batches, min(failing_since) AS since, mode() WITHIN GROUP (ORDER BY failure) AS failure
        FROM etl_batches
        WHERE {OPEN_BATCH} AND ({one_of("failure", TROUBLES)}
            OR failing_since < clock_timestamp() - interval '1 minute')
    """)
    row = connection.execute(query).one()
    return Failing(**row._asdict()) if row.batches else None
