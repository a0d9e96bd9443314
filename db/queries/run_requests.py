"""Asking for runs now: the one way, whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.runs import IS_SLOW, active_runs
from db.queries.share import count_set_aside, send_slow_runs
from db.queries.sources import find_sources
from db.statement import text
from db.states import ACTIVE_RUN
from etl.errors import NoSnapshotError
from etl.runs.messages import ExtractMessage
from etl.runs.run_requests import Refusal, Requested, RequestedRun, RequestStatus, WantedSource, first_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.runs.outcome import Trigger

# So many messages are sent before whoever asked gets an answer; the sweeper sends the others.
SENT_AT_ONCE = 100


def request_runs(
    connection: Connection,
    names: Sequence[str] | None,
    trigger: Trigger,
    run_id: UUID | None = None,
    *,
    read_all: bool = False,
    accept_deletions: bool = False,
) -> Requested | Refusal:
    """Queue a run of each of these sources; without names, of all that are to run by themselves.

    A source that has an active run keeps it. Nothing is queued if one of those named may not run. `run_id` is that of
    the run, where one source is named. With `read_all` the runs forget how far the sources were read, and what of them
    is unchanged; with `accept_deletions` too, and they delete what is missing, however much it is.

    Raises:
        UnknownSourceError: one of the names is not known; nothing was queued.
        NoSnapshotError: there are no deletions to accept; nothing was queued.
    """
    sources = [WantedSource(**row._asdict()) for row in find_sources(connection, names)]
    if refusal := first_refusal(sources):
        return refusal
    wanted = [one.name for one in sources]
    if accept_deletions and (others := list(connection.execute(_NO_SNAPSHOTS, {"names": wanted}).scalars())):
        raise NoSnapshotError(f"`accept_deletions`: the source {others[0]!r} is no `full_snapshot`")
    values = {"names": wanted, "trigger": trigger, "run_id": run_id, "sent": SENT_AT_ONCE}
    values |= {"read_all": read_all or accept_deletions, "accept_deletions": accept_deletions}
    rows = connection.execute(_QUEUE, values).all()
    queued = {row.source_name: row.run_id for row in rows}
    others = [name for name in wanted if name not in queued]
    active = active_runs(connection, others) if others else {}
    messages = [ExtractMessage(row.run_id) for row in rows if row.is_sent]
    if queued:
        messages += send_slow_runs(connection)
    runs = [_requested(source, queued, active) for source in sources]
    return Requested(runs, messages, count_set_aside(connection) if names is None else 0)


_NO_SNAPSHOTS = text("""
    SELECT name FROM sources WHERE name = ANY (:names) AND config -> 'full_snapshot' IS DISTINCT FROM 'true'::jsonb
""")
# In the order of names, so that two who ask for the same wait for each other once, and never in a circle.
_QUEUE = text(f"""
    WITH wanted AS (
        SELECT s.name, s.type, {IS_SLOW} AS slow, c.value AS checkpoint,
            row_number() OVER (PARTITION BY {IS_SLOW} ORDER BY s.name) AS number
        FROM sources s LEFT JOIN etl_checkpoints c ON c.source_name = s.name
        WHERE s.name = ANY (:names) AND NOT EXISTS (
            SELECT 1 FROM etl_runs r WHERE r.source_name = s.name AND r.lane = 'fetch' AND r.{ACTIVE_RUN})
    ), queued AS (
        INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, slow, dispatched_at,
                              checkpoint_before, read_all, accept_deletions)
        SELECT coalesce(CAST(:run_id AS uuid), gen_random_uuid()), name, type, :trigger, 'queued', 'queued', slow,
            CASE WHEN NOT slow AND number <= :sent THEN clock_timestamp() END, checkpoint,
            :read_all, :accept_deletions
        FROM wanted ORDER BY name
        ON CONFLICT DO NOTHING
        RETURNING run_id, source_name, dispatched_at IS NOT NULL AS is_sent
    ), noted AS (
        INSERT INTO etl_run_events (run_id, event, detail)
        SELECT run_id, 'queued', jsonb_build_object('trigger', CAST(:trigger AS text)) FROM queued
    )
    SELECT run_id, source_name, is_sent FROM queued
""")


def _requested(source: WantedSource, queued: dict[str, UUID], active: dict[str, UUID]) -> RequestedRun:
    if source.name in queued:
        return RequestedRun(source, queued[source.name], RequestStatus.QUEUED)
    return RequestedRun(source, active.get(source.name), RequestStatus.ALREADY_ACTIVE)
