"""The share of the pool that slow sources have, and the sources that worker processes died of.

Runs of slow sources are sent for one by one, as there is room for them: whoever ends such a slice, or sweeps, sends the
next. A run that is marked as sent counts until its slice ends, so no lock is needed to claim it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from db.queries.closing import end_run
from db.queries.events import record_event
from db.queries.processes import PROCESSES
from db.queries.run_locks import lock_run
from db.statement import text
from db.states import ACTIVE_RUN, has_room
from etl.runs.messages import ExtractMessage
from etl.runs.outcome import Failure, Lane, Outcome, Status
from etl.runs.share import MISS_COSTS, MOST_MISSES, SET_ASIDE, set_aside_for, slow_processes
from etl.runs.slices import MAX_OPEN_BATCHES, MAX_RUN_ATTEMPTS

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

SHARE_LOCK = 7236150422
# Of a source, in SQL.
IS_SET_ASIDE = f"coalesce(not_before_reason = '{SET_ASIDE}' AND not_before > statement_timestamp(), false)"
# What ends the time that a source is set aside.
TAKEN_BACK = f"""deaths = 0, death_cause = NULL,
    not_before = CASE WHEN not_before_reason = '{SET_ASIDE}' THEN NULL ELSE not_before END,
    not_before_reason = nullif(not_before_reason, '{SET_ASIDE}')"""

_POOL = text(f"""
    SELECT coalesce({PROCESSES}, 0) AS processes,
        (SELECT count(*) FROM etl_runs WHERE slow AND {ACTIVE_RUN} AND extracted_at IS NULL
           AND dispatched_at IS NOT NULL) AS held
""")
# Those that nobody has tried yet come first: they are tried briefly. Nobody waits for ever.
_SEND = text(f"""
    UPDATE etl_runs r
    SET dispatched_at = statement_timestamp(), claimed_at = NULL
    FROM (SELECT q.run_id FROM etl_runs q JOIN sources s ON s.name = q.source_name
          WHERE q.slow AND {ACTIVE_RUN} AND q.extracted_at IS NULL AND q.dispatched_at IS NULL
            AND q.lease_expires_at IS NULL AND (q.not_before IS NULL OR q.not_before <= clock_timestamp())
            AND (q.stage <> 'loading' OR {has_room("q", ":max_open")})
          ORDER BY coalesce(q.not_before, q.created_at) + make_interval(secs => :costs * least(s.misses, :most))
          LIMIT :room FOR UPDATE OF q SKIP LOCKED) due
    WHERE r.run_id = due.run_id
    RETURNING r.run_id, r.lane <> 'fetch' AS low
""")


def _room(connection: Connection) -> int:
    """For how many more slices of slow sources there is room. Who asks holds SHARE_LOCK until the transaction ends."""
    pool = connection.execute(_POOL).one()
    return int(slow_processes(pool.processes) - pool.held)


def send_slow_runs(connection: Connection) -> list[ExtractMessage]:
    """Mark as sent the runs of slow sources that there is room for; their messages. Who sends already sends for all."""
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": SHARE_LOCK}).scalar_one():
        return []
    room = _room(connection)
    if room <= 0:
        return []
    rows = connection.execute(
        _SEND, {"room": room, "max_open": MAX_OPEN_BATCHES - 1, "costs": MISS_COSTS, "most": MOST_MISSES}
    )
    return [ExtractMessage(row.run_id, low=row.low) for row in rows]


def enter_share(connection: Connection, run_id: UUID) -> bool:
    """Count a run that is under way among the slow ones, if there is room."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SHARE_LOCK})
    if _room(connection) <= 0:
        return False
    mark_slow(connection, run_id)
    return True


def mark_slow(connection: Connection, run_id: UUID) -> None:
    """The run's next slices belong to the share of slow sources."""
    connection.execute(text("UPDATE etl_runs SET slow = true WHERE run_id = :run_id"), {"run_id": run_id})


def note_answer(connection: Connection, run_id: UUID, source_name: str) -> None:
    """The source answered in time: it is not slow any more."""
    connection.execute(
        text("UPDATE sources SET answered_at = clock_timestamp(), misses = 0 WHERE name = :name"), {"name": source_name}
    )
    query = text("""
        UPDATE etl_runs r SET slow = false FROM sources s
        WHERE r.run_id = :run_id AND s.name = r.source_name AND s.deaths = 0
    """)
    connection.execute(query, {"run_id": run_id})


def note_miss(connection: Connection, run_id: UUID, source_name: str) -> None:
    """The source did not answer in time, or too slowly."""
    connection.execute(text("UPDATE sources SET misses = misses + 1 WHERE name = :name"), {"name": source_name})
    mark_slow(connection, run_id)


@dataclass(frozen=True)
class Death:
    """A worker process died of a source: how often that has happened in a row, and for how long it is set aside."""

    source_name: str
    deaths: int
    set_aside: float | None


_DIED = text("""
    UPDATE etl_runs r
    SET token = token + 1, lease_expires_at = NULL, stage = 'waiting', dispatched_at = NULL, claimed_at = NULL,
        slow = slow OR lane = 'fetch', not_before = clock_timestamp() + make_interval(secs => least(2 ^ attempt, 60))
    WHERE run_id = :run_id AND token = :token AND status = 'running' AND extracted_at IS NULL
      AND lease_expires_at IS NOT NULL
    RETURNING source_name, attempt, lane
""")


def note_death(connection: Connection, run_id: UUID, token: int, cause: str) -> Death | None:
    """A process died while it held this claim: the run is free again, or its source is set aside.

    None when the claim was not held any more: then the source is not to blame.
    """
    lock_run(connection, run_id)
    row = connection.execute(_DIED, {"run_id": run_id, "token": token}).first()
    if row is None:
        return None
    record_event(connection, run_id, "process_died", cause=cause)
    # What is driven again says nothing of the source, which is not set aside.
    is_fetched = row.lane == Lane.FETCH
    death = count_death(connection, row.source_name, cause) if is_fetched else Death(row.source_name, row.attempt, None)
    if death.set_aside is not None or row.attempt >= MAX_RUN_ATTEMPTS:
        message = f"{death.deaths} worker processes died of it in a row; the last one because {cause}"
        end_run(connection, run_id, Outcome(Status.FAILED, Failure("process_died", message)))
    return death


def count_death(connection: Connection, source_name: str, cause: str) -> Death:
    """One more process died of this source; after three in a row it is set aside."""
    query = text("""
        UPDATE sources SET deaths = deaths + 1, death_cause = :cause WHERE name = :name RETURNING deaths
    """)
    deaths = connection.execute(query, {"name": source_name, "cause": cause}).scalar() or 0
    seconds = set_aside_for(deaths)
    if seconds is not None:
        aside = text("""
            UPDATE sources SET not_before = clock_timestamp() + make_interval(secs => :seconds),
                not_before_reason = :reason
            WHERE name = :name
        """)
        connection.execute(aside, {"name": source_name, "seconds": seconds, "reason": SET_ASIDE})
    return Death(source_name, deaths, seconds)


def count_set_aside(connection: Connection) -> int:
    """How many enabled sources are set aside."""
    return int(connection.execute(text(f"SELECT count(*) FROM sources WHERE enabled AND {IS_SET_ASIDE}")).scalar_one())


def forget_deaths(connection: Connection, source_name: str) -> bool:
    """End the time that a source is set aside; False when it is not, and nothing died of it."""
    query = text(f"""
        UPDATE sources SET {TAKEN_BACK}
        WHERE name = :name AND (deaths > 0 OR not_before_reason = :reason)
        RETURNING name
    """)
    return connection.execute(query, {"name": source_name, "reason": SET_ASIDE}).first() is not None


_LOST = text("""
    SELECT CAST(held.key AS uuid) AS run_id, held.token
    FROM unnest(CAST(:keys AS text[]), CAST(:tokens AS bigint[])) AS held(key, token)
    LEFT JOIN etl_runs r ON r.run_id = CAST(held.key AS uuid) AND r.token = held.token
        AND r.status = 'running' AND r.lease_expires_at IS NOT NULL
    WHERE r.run_id IS NULL
""")
_LOST_BATCHES = text("""
    SELECT held.key AS batch_id, held.token
    FROM unnest(CAST(:keys AS bigint[]), CAST(:tokens AS bigint[])) AS held(key, token)
    LEFT JOIN etl_batches b ON b.batch_id = held.key AND b.token = held.token
        AND b.lease_expires_at IS NOT NULL
    LEFT JOIN etl_runs r ON r.run_id = b.run_id AND r.status = 'running'
    WHERE r.run_id IS NULL
""")


def lost_runs(connection: Connection, held: list[tuple[UUID, int]]) -> set[tuple[UUID, int]]:
    """Which of these claims on runs (id, token) are lost: given back, cancelled, ended or taken over."""
    if not held:
        return set()
    values = {"keys": [str(key) for key, _ in held], "tokens": [token for _, token in held]}
    return {(row.run_id, row.token) for row in connection.execute(_LOST, values)}


def lost_batches(connection: Connection, held: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """The same for claims on batches."""
    if not held:
        return set()
    values = {"keys": [key for key, _ in held], "tokens": [token for _, token in held]}
    return {(row.batch_id, row.token) for row in connection.execute(_LOST_BATCHES, values)}
