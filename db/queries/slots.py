"""The schedule's table work: beat claims due slots here, however many beats there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from db.queries.processes import ALIVE_SECONDS
from db.queries.runs import NewRun, queue_run, record_run
from db.queries.share import send_slow_runs
from db.statement import text
from etl.declare.source import Schedule
from etl.runs import schedule as slots
from etl.runs.outcome import Failure, Status, Trigger
from etl.runs.share import SET_ASIDE, set_aside_message

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from sqlalchemy import Connection, Row

# Slots claimed in one transaction.
CLAIMED_AT_ONCE = 200

_DUE = text("""
    SELECT name, type, config -> 'schedule' AS schedule, next_run_at, not_before, not_before_reason, rest,
        clock_timestamp() AS now
    FROM sources
    WHERE enabled AND gone_reason IS NULL AND next_run_at <= clock_timestamp()
      AND (paused_until IS NULL OR paused_until <= clock_timestamp())
    ORDER BY next_run_at, name LIMIT :limit
    FOR UPDATE SKIP LOCKED
""")


def claim_slots(connection: Connection) -> tuple[list[UUID], int]:
    """Make the runs of due slots.

    Returns:
        The runs to publish now, and how many slots were claimed.
    """
    rows = connection.execute(_DUE, {"limit": CLAIMED_AT_ONCE}).all()
    runs = [run for row in rows if (run := _claim(connection, row)) is not None]
    slow = send_slow_runs(connection) if rows else []
    return runs + [message.run_id for message in slow], len(rows)


_ADVANCE = text("UPDATE sources SET next_run_at = :following WHERE name = :name")


def _claim(connection: Connection, row: Row[Any]) -> UUID | None:
    """Make the run of a due slot, or put on record why there is none; the run, if it is to be published now."""
    schedule, quiet = msgspec.convert(row.schedule, Schedule), msgspec.convert(row.rest, slots.QuietHours | None)
    wishes = slots.Wishes(row.not_before, row.not_before_reason == SET_ASIDE, quiet)
    decided = slots.decide(schedule, row.name, row.next_run_at, row.now, wishes)
    run = NewRun(
        run_id=uuid4(),
        source_name=row.name,
        source_type=row.type,
        trigger=Trigger.SCHEDULE,
        scheduled_for=decided.slot,
        slots_missed=decided.missed,
        not_before=decided.dispatch_at,
    )
    connection.execute(_ADVANCE, {"following": decided.following, "name": row.name})
    if decided.left_out:
        record_run(connection, run, Status.SKIPPED, _reason(decided.left_out, row))
        return None
    queued = queue_run(connection, run)
    if queued is None:
        _record_skipped(connection, run)
        return None
    return run.run_id if queued.is_sent else None


def _reason(left_out: slots.NotNow, row: Row[Any]) -> Failure:
    match left_out:
        case slots.NotNow.SET_ASIDE:
            return Failure(SET_ASIDE, set_aside_message(row.name, row.not_before))
        case slots.NotNow.ASKED_TO_WAIT:
            return Failure("not_due", f"the server asked to wait until {row.not_before:%FT%TZ}")
        case slots.NotNow.QUIET_HOUR:
            return Failure("not_due", "the source asks not to be polled at this hour")


def _record_skipped(connection: Connection, run: NewRun) -> None:
    """The slot stays on record, unless another beat has it already."""
    taken = text("SELECT 1 FROM etl_runs WHERE source_name = :name AND scheduled_for = :slot")
    if not connection.execute(taken, {"name": run.source_name, "slot": run.scheduled_for}).first():
        record_run(connection, run, Status.SKIPPED, Failure("already_active", "the previous run was still active"))


@dataclass(frozen=True)
class Overdue:
    """Slots that nobody claims: of how many sources, and since when the first is due."""

    sources: int
    since: datetime


def overdue_slots(connection: Connection) -> Overdue | None:
    """The slots that no beat claims: half a minute after they were due if none is alive, else after five.

    On the hour thousands may be due at once, which takes a beat its time.
    """
    query = text(f"""
        SELECT count(*) AS sources, min(next_run_at) AS since FROM sources
        WHERE enabled AND gone_reason IS NULL AND (paused_until IS NULL OR paused_until <= clock_timestamp())
          AND next_run_at < clock_timestamp() - CASE WHEN EXISTS (
                SELECT 1 FROM etl_workers WHERE kind = 'beat'
                  AND seen_at > clock_timestamp() - interval '{ALIVE_SECONDS} s')
            THEN interval '5 minutes' ELSE interval '30 s' END
    """)
    row = connection.execute(query).one()
    return Overdue(row.sources, row.since) if row.sources else None


def seconds_to_next(connection: Connection) -> float | None:
    """How long until the next slot of any source; None without sources."""
    query = text("""
        SELECT extract(epoch FROM min(next_run_at) - clock_timestamp())::double precision FROM sources
        WHERE enabled AND gone_reason IS NULL AND (paused_until IS NULL OR paused_until <= clock_timestamp())
    """)
    return connection.execute(query).scalar()
