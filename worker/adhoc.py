"""A run asked for from a shell, by `celery call`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.run_requests import request_runs
from db.queries.runs import NewRun, record_run
from etl.errors import AlreadyActiveError, UnknownSourceError
from etl.runs.outcome import Failure, Status, Trigger
from etl.runs.run_requests import Refusal

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from db.session import Database
    from etl.runs.messages import ExtractMessage
    from etl.runs.run_requests import WantedSource


def queue(database: Database, run_id: UUID, source_name: str) -> list[ExtractMessage]:
    """Queue a run of a source. What cannot be queued is recorded under the same id, with the reason.

    Returns:
        The messages to send.
    """
    return database.transact(_queue, run_id, source_name)


def _queue(connection: Connection, run_id: UUID, source_name: str) -> list[ExtractMessage]:
    try:
        answer = request_runs(connection, [source_name], Trigger.CLI, run_id)
    except UnknownSourceError as error:
        unknown = NewRun(run_id, source_name, None, Trigger.CLI)
        record_run(connection, unknown, Status.FAILED, Failure(error.code, error.message))
        return []
    if isinstance(answer, Refusal):
        _skip(connection, run_id, answer.source, answer.failure)
        return []
    if not answer.queued:
        failure = Failure(AlreadyActiveError.code, "the source had an active run")
        _skip(connection, run_id, answer.runs[0].source, failure)
    return answer.messages


def _skip(connection: Connection, run_id: UUID, source: WantedSource, failure: Failure) -> None:
    """Put on record that the run was not queued."""
    record_run(connection, NewRun(run_id, source.name, source.type, Trigger.CLI), Status.SKIPPED, failure)
