"""What stands just now and no end of a run tells: of sources, and of the service."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from db.errors import TROUBLES
from db.queries.alarms import list_alarms
from db.queries.failures import failing_batches
from db.queries.processes import count_alive
from db.queries.share import IS_SET_ASIDE
from db.queries.slots import overdue_slots
from db.statement import text
from db.states import IS_PAUSED
from etl.alerts.cause import Cause, Kind, Member

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection

# All that is looked for here.
KINDS = frozenset(
    {
        *(Kind.LATE, Kind.SET_ASIDE, Kind.REJECTS, Kind.DRIFT),
        *(Kind.SCHEDULER, Kind.WORKERS, Kind.DATABASE, Kind.ALARM),
    }
)
# Open rejected records that a source may have, if it does not say.
MOST_REJECTS = 1000
# One that was just read counts as late until somebody has looked.
LATE_FOR = timedelta(seconds=45)
# What passes sooner, as a restart does, is not told of.
NO_WORKER_FOR, NO_DATABASE_FOR = timedelta(seconds=60), timedelta(seconds=120)

_OF_SOURCES = text(f"""
    SELECT '{Kind.LATE}' AS kind, name, config -> 'tags' AS tags, late_since AS since,
        'nothing was read of it for longer than ' || coalesce(round(late_after) || ' s', 'it may be') AS message
    FROM sources s WHERE enabled AND late_since IS NOT NULL AND NOT {IS_PAUSED}
    UNION ALL
    SELECT '{Kind.SET_ASIDE}', name, config -> 'tags', NULL,
        'worker processes died of it' || coalesce(': ' || death_cause, '') || '; it is tried again at '
            || to_char(not_before, 'YYYY-MM-DD"T"HH24\\:MI\\:SS"Z"')
    FROM sources WHERE enabled AND {IS_SET_ASIDE}
    UNION ALL
    SELECT '{Kind.REJECTS}', s.name, s.config -> 'tags', NULL, 'more than ' || l.most || ' rejected records are open'
    FROM sources s
    CROSS JOIN LATERAL (SELECT coalesce((s.config ->> 'alert_rejects')::bigint, {MOST_REJECTS}) AS most) l
    CROSS JOIN LATERAL (SELECT count(*) AS open FROM (
        SELECT 1 FROM rejected_records r WHERE r.source_name = s.name AND r.state = 'open' LIMIT l.most + 1) counted) c
    WHERE s.enabled AND c.open > l.most
    UNION ALL
    SELECT '{Kind.DRIFT}', f.source_name, s.config -> 'tags', NULL, min(f.drift ->> 'message')
    FROM source_fields f JOIN sources s ON s.name = f.source_name
    WHERE f.drift IS NOT NULL AND f.drift ? 'message' AND f.mapping_version = s.mapping_version AND s.enabled
    GROUP BY f.source_name, s.config -> 'tags'
""")
_UNREAD = text(f"""
    SELECT DISTINCT m.source_name FROM alert_members m LEFT JOIN sources s ON s.name = m.source_name
    WHERE m.source_name IS NOT NULL AND (s.name IS NULL OR NOT s.enabled OR {IS_PAUSED})
""")


def find_standing(connection: Connection, now: datetime, *, is_scheduling: bool) -> list[Member]:
    """All that stands of `KINDS`."""
    return [*_of_sources(connection, now), *service_troubles(connection, now, is_scheduling=is_scheduling)]


def unread_sources(connection: Connection) -> list[str]:
    """The sources that concern nobody now: disabled, paused or deleted."""
    return list(connection.execute(_UNREAD).scalars())


def database_time(connection: Connection) -> datetime:
    """The clock by which everything is judged."""
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def _of_sources(connection: Connection, now: datetime) -> Iterator[Member]:
    for row in connection.execute(_OF_SOURCES):
        kind, since = Kind(row.kind), row.since or now
        due_at = now + LATE_FOR if kind is Kind.LATE else since
        yield Member(
            Cause(kind, row.name), row.name, since, due_at, row.message, source=row.name, tags=tuple(row.tags or ())
        )


def service_troubles(connection: Connection, now: datetime, *, is_scheduling: bool) -> Iterator[Member]:
    """What is wrong with the service as a whole."""
    if not count_alive(connection, "worker"):
        yield part(Kind.WORKERS, now, now + NO_WORKER_FOR, "no worker was seen for a minute; nothing runs")
    overdue = overdue_slots(connection) if is_scheduling else None
    if overdue:
        message = f"no scheduler claims the slots of {overdue.sources} sources; is beat running?"
        yield part(Kind.SCHEDULER, overdue.since, now, message)
    failing = failing_batches(connection)
    if failing:
        message = f"{failing.batches} batches cannot be written: {TROUBLES.get(failing.failure, failing.failure)}"
        yield part(Kind.DATABASE, failing.since, failing.since + NO_DATABASE_FOR, message)
    for alarm in list_alarms(connection):
        yield part(Kind.ALARM, alarm.since, alarm.since, alarm.message, alarm.code)


def part(kind: Kind, since: datetime, due_at: datetime, message: str, subject: str = "") -> Member:
    """A part of the service that something is wrong with."""
    return Member(Cause(kind, subject), subject or str(kind), since, due_at, message)
