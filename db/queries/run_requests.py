"""Asking for runs now: the one way, whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from db.queries.runs import NewRun, active_run, queue_run
from db.queries.share import count_set_aside, send_slow_runs
from db.queries.sources import find_sources
from etl.runs.messages import ExtractMessage
from etl.runs.run_requests import Refusal, Requested, RequestedRun, RequestStatus, WantedSource, first_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from db.queries.runs import Queued
    from etl.runs.outcome import Trigger


def request_runs(
    connection: Connection, names: Sequence[str] | None, trigger: Trigger, run_id: UUID | None = None
) -> Requested | Refusal:
    """Queue a run of each of these sources; without names, of all that are to run by themselves.

    A source that has an active run keeps it. Nothing is queued if one of those named may not run. `run_id` is that of
    the run, where one source is named.

    Raises:
        UnknownSourceError: one of the names is not known; nothing was queued.
    """
    sources = [WantedSource(**row._asdict()) for row in find_sources(connection, names)]
    if refusal := first_refusal(sources):
        return refusal
    queued = [queue_run(connection, NewRun(run_id or uuid4(), one.name, one.type, trigger)) for one in sources]
    runs = [_requested(connection, source, run) for source, run in zip(sources, queued, strict=True)]
    messages = [ExtractMessage(run.run_id) for run in queued if run and run.is_sent]
    if any(queued):
        messages += send_slow_runs(connection)
    return Requested(runs, messages, count_set_aside(connection) if names is None else 0)


def _requested(connection: Connection, source: WantedSource, queued: Queued | None) -> RequestedRun:
    if queued is not None:
        return RequestedRun(source, queued.run_id, RequestStatus.QUEUED)
    return RequestedRun(source, active_run(connection, source.name), RequestStatus.ALREADY_ACTIVE)
