"""The schedule's table work: beat claims due slots here, however many beats there are."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from db.queries.runs import NewRun, queue_run, record_run
from db.queries.share import SET_ASIDE, send_slow_runs
from db.statement import text
from etl import schedule as slots
from etl.outcome import Failure, Status
from etl.share import set_aside_message
from etl.source import Schedule

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


def _claim(connection: Connection, row: Row[tuple[object, ...]]) -> UUID | None:
    schedule = msgspec.convert(row.schedule, Schedule)
    due = slots.due(schedule, row.next_run_at, row.now)
    dispatch_at = due.slot + slots.delay(schedule, row.name, due.slot)
    run = NewRun(
        run_id=uuid4(),
        source_name=row.name,
        source_type=row.type,
        trigger="schedule",
        scheduled_for=due.slot,
        slots_missed=due.missed,
        not_before=dispatch_at if dispatch_at > row.now else None,
    )
    query = text("UPDATE sources SET next_run_at = :following WHERE name = :name")
    connection.execute(query, {"following": due.following, "name": row.name})
    failure = _not_due(row, due.slot)
    if failure:
        record_run(connection, run, Status.SKIPPED, failure)
        return None
    queued = queue_run(connection, run)
    if queued is None:
        _record_skipped(connection, run)
        return None
    return run.run_id if queued.is_sent else None


def _not_due(row: Row[tuple[object, ...]], slot: datetime) -> Failure | None:
    """Why a slot is left out: by the server's own word, or because the source is set aside."""
    if row.not_before is not None and row.not_before > max(slot, row.now):
        if row.not_before_reason == SET_ASIDE:
            return Failure(SET_ASIDE, set_aside_message(row.name, row.not_before))
        return Failure("not_due", f"the server asked to wait until {row.not_before:%FT%TZ}")
    schedule, rest = msgspec.convert(row.schedule, Schedule), msgspec.convert(row.rest or {}, slots.Rest)
    if slots.may_rest(schedule, rest, row.now):
        return Failure("not_due", "the source asks not to be polled at this hour")
    return None


def _record_skipped(connection: Connection, run: NewRun) -> None:
    """The slot stays on record, unless another beat has it already."""
    taken = text("SELECT 1 FROM etl_runs WHERE source_name = :name AND scheduled_for = :slot")
    if not connection.execute(taken, {"name": run.source_name, "slot": run.scheduled_for}).first():
        record_run(connection, run, Status.SKIPPED, Failure("already_active", "the previous run was still active"))


def seconds_to_next(connection: Connection) -> float | None:
    """How long until the next slot of any source; None without sources."""
    query = text("""
        SELECT extract(epoch FROM min(next_run_at) - clock_timestamp())::double precision FROM sources
        WHERE enabled AND gone_reason IS NULL AND (paused_until IS NULL OR paused_until <= clock_timestamp())
    """)
    return connection.execute(query).scalar()
