"""Runs: asked for, listed, cancelled."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from uuid import UUID, uuid4

import marshmallow as ma
from flask import url_for
from flask.views import MethodView

from db.queries.closing import end_run
from db.queries.events import list_events
from db.queries.runs import NewRun, active_run, check_cancellable, get_run, list_runs, queue_run
from db.queries.share import count_set_aside, send_slow_runs
from db.queries.sources import find_sources
from etl.errors import AlreadyActiveError, SourceInactiveError
from etl.messages import ExtractMessage
from etl.outcome import Failure, Outcome, Status
from etl.share import set_aside_message
from messaging import publish
from web.cursors import RunCursor, pack, unpack
from web.extensions import service
from web.present import present_run
from web.requests import Resource
from web.schemas.problem import NoQuerySchema
from web.schemas.runs import (
    QueuedRunsSchema,
    RunRequestSchema,
    RunSchema,
    RunsQuerySchema,
    RunsSchema,
    RunWithEventsSchema,
)

blueprint = Resource("runs", __name__, description="Passes over sources.")


@blueprint.route("/runs")
class Runs(MethodView):
    """All runs."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(RunRequestSchema)
    @blueprint.response(202, QueuedRunsSchema)
    @blueprint.alt_response(404, description="A name is not known; nothing was queued.")
    @blueprint.alt_response(
        409, description="Nothing new could be queued, or a named source is disabled, paused or set aside."
    )
    def post(self, wanted: dict[str, Any]) -> Any:
        """Run sources now.

        Without `source` or `sources`, all that are enabled. The runs start as soon as a worker is free, also when the
        message broker is away for the moment.
        """
        parts = service()
        names = wanted.get("sources") or ([wanted["source"]] if "source" in wanted else None)
        runs, outgoing, set_aside = parts.database.transact(_queue, names)
        new = [run["run_id"] for run in runs if run["status"] == "queued"]
        if not new:
            raise _nothing_queued(runs)
        publish(parts.producer, outgoing)
        return {"runs": runs, "set_aside_total": set_aside}, {"Location": url_for("runs.Run", run_id=new[0])}

    @blueprint.arguments(RunsQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, RunsSchema)
    @blueprint.alt_response(503, description="The database is away, or needs too long for this (`too_slow`).")
    def get(self, query: dict[str, Any]) -> Any:
        """List runs, newest first."""
        cursor = unpack(query["cursor"], RunCursor) if "cursor" in query else None
        limit = query["limit"]
        # No index leads to the runs of a status.
        with service().slow.enter() if "status" in query else nullcontext():
            rows = service().database.read(
                list_runs,
                source_name=query.get("source_name"),
                status=query.get("status"),
                before=None if cursor is None else (cursor.created_at, cursor.run_id),
                limit=limit + 1,
            )
        more = rows[limit - 1] if len(rows) > limit else None
        return {
            "runs": [present_run(row) for row in rows[:limit]],
            "next_cursor": more and pack(RunCursor(more.created_at, more.run_id)),
        }


@blueprint.route("/runs/<uuid:run_id>")
class Run(MethodView):
    """One run."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, RunWithEventsSchema)
    @blueprint.alt_response(404, description="There is no such run.")
    def get(self, run_id: UUID) -> Any:
        """Show a run, with its counts so far and its events."""

        def read(connection: Any) -> dict[str, Any]:
            row = get_run(connection, run_id)
            return {**present_run(row), "events": [event._asdict() for event in list_events(connection, run_id)]}

        return service().database.read(read)


@blueprint.route("/runs/<uuid:run_id>/cancel")
class RunCancel(MethodView):
    """The end of a run before its time."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(202, RunSchema)
    @blueprint.alt_response(404, description="There is no such run.")
    @blueprint.alt_response(409, description="It has already ended.")
    def post(self, run_id: UUID) -> Any:
        """Cancel a run: no further page or batch of it is stored. What is loaded stays."""

        def cancel(connection: Any) -> dict[str, Any]:
            check_cancellable(connection, run_id)
            end_run(connection, run_id, Outcome(Status.CANCELLED, Failure("cancelled", "cancelled over the API")))
            return present_run(get_run(connection, run_id))

        return service().database.transact(cancel)


def _queue(connection: Any, names: list[str] | None) -> tuple[list[dict[str, Any]], list[ExtractMessage], int]:
    """Queue a run of each source, or none if a name is not known or a named source is not active.

    Returns:
        The runs as they are shown, the messages to send, and how many sources were left out as set aside.
    """
    sources = find_sources(connection, names)
    for source in sources:
        _check_active(source)
    outgoing: list[ExtractMessage] = []
    runs = [_queue_one(connection, source, outgoing) for source in sources]
    return runs, outgoing + send_slow_runs(connection), count_set_aside(connection) if names is None else 0


def _check_active(source: Any) -> None:
    """Refuse a named source that is not to run.

    Raises:
        SourceInactiveError: it is disabled, paused or set aside.
    """
    if source.set_aside_until:
        raise SourceInactiveError(
            set_aside_message(source.name, source.set_aside_until),
            code="set_aside",
            source=source.name,
            not_before=source.set_aside_until,
        )
    if not source.enabled or source.paused:
        state = "paused" if source.enabled else "disabled"
        raise SourceInactiveError(f"the source {source.name!r} is {state}", source=source.name)


def _queue_one(connection: Any, source: Any, outgoing: list[ExtractMessage]) -> dict[str, Any]:
    run_id = uuid4()
    queued = queue_run(connection, NewRun(run_id, source.name, source.type, "api"))
    if queued is None:
        return {"run_id": active_run(connection, source.name), "source_name": source.name, "status": "already_active"}
    if queued.is_sent:
        outgoing.append(ExtractMessage(run_id))
    return {"run_id": run_id, "source_name": source.name, "status": "queued"}


def _nothing_queued(runs: list[dict[str, Any]]) -> AlreadyActiveError:
    if not runs:
        return AlreadyActiveError("no source is enabled", code="no_sources")
    active = [str(run["run_id"]) for run in runs if run["run_id"]]
    names = ", ".join(run["source_name"] for run in runs[:5])
    return AlreadyActiveError(f"already active: {names}", active_run_id=active[0] if active else None)
