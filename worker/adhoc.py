"""A run asked for from a shell, by `celery call`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.runs import NewRun, queue_run, record_run
from db.queries.share import send_slow_runs
from db.queries.sources import find_sources
from etl.errors import UnknownSourceError
from etl.messages import ExtractMessage
from etl.outcome import Failure, Status
from etl.share import SET_ASIDE, set_aside_message

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from db.session import Database
    from etl.messages import Message


def queue(database: Database, run_id: UUID, source_name: str) -> list[Message]:
    """Queue a run of a source. What cannot be queued is recorded under the same id, with the reason.

    Returns:
        The message to send.
    """
    return database.transact(_queue, run_id, source_name)


def _queue(connection: Connection, run_id: UUID, source_name: str) -> list[Message]:
    try:
        source = find_sources(connection, [source_name])[0]
    except UnknownSourceError as error:
        unknown = NewRun(run_id, source_name, None, "cli")
        record_run(connection, unknown, Status.FAILED, Failure(error.code, error.message))
        return []
    run = NewRun(run_id, source_name, source.type, "cli")
    if not source.enabled or source.paused:
        state = "paused" if source.enabled else "disabled"
        record_run(connection, run, Status.SKIPPED, Failure("source_inactive", f"the source is {state}"))
    elif source.set_aside_until:
        reason = set_aside_message(source_name, source.set_aside_until)
        record_run(connection, run, Status.SKIPPED, Failure(SET_ASIDE, reason))
    elif queued := queue_run(connection, run):
        return [ExtractMessage(run_id)] if queued.is_sent else [*send_slow_runs(connection)]
    else:
        record_run(connection, run, Status.SKIPPED, Failure("already_active", "the source had an active run"))
    return []
