"""The database's clock, by which slots, leases and heartbeats go: what is done when it was set back.

Times that were written before lie ahead then. A lease would not end, a wait and a slot not come, until the clock is
where it was; those who died would count as alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from db.queries.alarms import clear_alarm, raise_alarm
from db.queries.events import record_event
from db.statement import text
from db.states import ACTIVE_RUN, OPEN_BATCH
from etl.declare.source import Schedule
from etl.runs.schedule import next_slot

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

CLOCK_LOCK = 7236150424
# Less is within what leases and waits bear: seconds.
NOTICED = 60.0
# Of what was written since, no lease and hardly a wait ends later: seconds.
LONGEST_SINCE = 600.0
ALARM = "clock_set_back"

# Nobody is seen and no run is made ahead of the clock.
_JUMP = text("""
    SELECT clock_timestamp() AS now, extract(epoch FROM greatest(
        (SELECT max(seen_at) FROM etl_workers),
        (SELECT created_at FROM etl_runs ORDER BY created_at DESC, run_id DESC LIMIT 1)
    ) - clock_timestamp())::double precision AS seconds
""")


def follow_clock(connection: Connection) -> float | None:
    """Look whether the clock was set back; then what lies ahead by that is taken back too.

    Leases and waits end as they would have, each source's next slot is the next one by the clock, and slots that were
    run before their time are free to be run at it.

    Returns:
        By how many seconds it was, None if it was not, or if another looks just now.
    """
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": CLOCK_LOCK}).scalar_one():
        return None
    look = connection.execute(_JUMP).one()
    if look.seconds is None or look.seconds < NOTICED:
        clear_alarm(connection, ALARM, older_than=3600)
        return None
    ahead = {"jump": look.seconds, "ahead": min(look.seconds - 10, LONGEST_SINCE)}
    for statement in _TAKE_BACK:
        connection.execute(statement, ahead)
    _free_slots(connection, look.seconds)
    _pull_in_slots(connection, look.now)
    message = f"the database's clock was set back by {look.seconds:.0f} s; slots, leases and waits were moved with it"
    raise_alarm(connection, ALARM, message)
    return float(look.seconds)


def _back(table: str, columns: tuple[str, ...], rows: str, ahead: str) -> str:
    """Columns of a table by the jump back, where they lie ahead by so much."""
    late = {name: f"{name} > clock_timestamp() + make_interval(secs => {ahead})" for name in columns}
    moved = (
        f"{name} = CASE WHEN {is_late} THEN {name} - make_interval(secs => :jump) ELSE {name} END"
        for name, is_late in late.items()
    )
    return f"UPDATE {table} SET {', '.join(moved)} WHERE {rows} AND ({' OR '.join(late.values())})"


_TAKE_BACK = [
    text(statement)
    for statement in (
        _back("etl_workers", ("seen_at",), "true", "0"),
        _back("etl_runs", ("dispatched_at", "claimed_at", "failing_since"), ACTIVE_RUN, "0"),
        _back("etl_batches", ("dispatched_at", "claimed_at", "failing_since"), OPEN_BATCH, "0"),
        _back("etl_runs", ("lease_expires_at", "not_before"), ACTIVE_RUN, ":ahead"),
        _back("etl_batches", ("lease_expires_at", "not_before"), OPEN_BATCH, ":ahead"),
        _back("sources", ("not_before",), "not_before IS NOT NULL", ":ahead"),
        _back("exports", ("seen_at",), "state = 'running'", "0"),
        _back("alert_sightings", ("seen_at",), "true", "0"),
        _back("alert_members", ("since", "due_at"), "true", "0"),
        _back("alert_incidents", ("changed_at", "told_at"), "true", "0"),
        "UPDATE alert_incidents SET told_times = '{}' WHERE clock_timestamp() < ANY (told_times)",
        _back("alert_deliveries", ("created_at", "due_at", "taken_until", "sent_at"), "true", "0"),
    )
]

_RUNS_AHEAD = text("""
    UPDATE etl_runs r
    SET scheduled_for = CASE WHEN r.scheduled_for <= clock_timestamp() THEN r.scheduled_for END,
        created_at = r.created_at - make_interval(secs => :jump),
        started_at = r.started_at - make_interval(secs => :jump),
        completed_at = r.completed_at - make_interval(secs => :jump)
    FROM (SELECT run_id, scheduled_for FROM etl_runs WHERE created_at > clock_timestamp()) old
    WHERE r.run_id = old.run_id
    RETURNING r.run_id, CASE WHEN r.scheduled_for IS NULL THEN old.scheduled_for END AS slot
""")


def _free_slots(connection: Connection, jump: float) -> None:
    """Runs of a time that has not come are of the time before, and have no slot."""
    for row in connection.execute(_RUNS_AHEAD, {"jump": jump}).all():
        if row.slot is not None:
            record_event(connection, row.run_id, ALARM, scheduled_for=row.slot)


_NEXT = text("""
    UPDATE sources s SET next_run_at = slot.at
    FROM unnest(CAST(:names AS text[]), CAST(:slots AS timestamptz[])) AS slot(name, at)
    WHERE s.name = slot.name AND s.next_run_at > slot.at
""")


def _pull_in_slots(connection: Connection, now: datetime) -> None:
    rows = connection.execute(text("SELECT name, config -> 'schedule' AS schedule FROM sources WHERE enabled")).all()
    slots = [next_slot(msgspec.convert(row.schedule, Schedule), now) for row in rows]
    connection.execute(_NEXT, {"names": [row.name for row in rows], "slots": slots})
