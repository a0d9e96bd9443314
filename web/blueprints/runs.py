"""Runs: asked for, listed, cancelled."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import url_for
from flask.views import MethodView

from broker.messaging import publish
from db.queries.closing import end_run
from db.queries.errors_grouped import group_errors, sources_failing_of
from db.queries.events import events_after, list_events
from db.queries.run_parts import list_batches, list_requests
from db.queries.run_requests import request_runs
from db.queries.runs import RUN_FILTERS, check_cancellable, find_runs, get_run, list_runs
from db.queries.source_list import Chosen, State, chosen_names
from db.queries.sources import check_known
from etl.access.roles import Role
from etl.errors import AlreadyActiveError
from etl.runs.outcome import Failure, Outcome, Status, Trigger
from etl.runs.run_requests import Refusal
from web import streams
from web.cursors import RunCursor, unpack
from web.extensions import service
from web.present.runs import (
    SHOWN_RUNS,
    present_parts,
    present_requested,
    present_run,
    present_run_with_events,
    present_runs,
)
from web.questions import naming_a_source
from web.requests import Resource, also
from web.schemas.problem import NoQuerySchema
from web.schemas.runs import (
    BatchesSchema,
    ErrorGroupsSchema,
    ErrorsQuerySchema,
    EventsQuerySchema,
    EventsSchema,
    QueuedRunsSchema,
    RequestsSchema,
    RunRequestSchema,
    RunSchema,
    RunsQuerySchema,
    RunsSchema,
    RunWithEventsSchema,
)
from web.writes import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sqlalchemy import Connection, Row

    from etl.runs.run_requests import RequestedRun

blueprint = Resource("runs", __name__, description="Passes over sources.")


@blueprint.route("/runs")
class Runs(MethodView):
    """All runs."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(RunRequestSchema)
    @blueprint.write("start_runs", Role.OPERATE)
    @blueprint.response(202, QueuedRunsSchema)
    @blueprint.problem(404, "A name is not known; nothing was queued.")
    @blueprint.problem(409, "Nothing new could be queued, or a named source is disabled, paused or set aside.")
    def post(self, wanted: dict[str, Any]) -> Any:
        """Run sources now.

        Without `source`, `sources` or `error`, all that are enabled; with `error`, those whose last run failed of it.
        They start as soon as a worker is free, also when the message broker is away for the moment. With `full` all of
        a source is read again, whatever is known of it; with `accept_deletions` too, and what is missing from it is
        deleted, however much that is.
        """
        write = current()
        names = _meant(write.connection, wanted)
        options = {"read_all": wanted["full"], "accept_deletions": wanted["accept_deletions"]}
        answer = request_runs(write.connection, names, Trigger.API, **options)
        if isinstance(answer, Refusal):
            raise answer.error
        if not answer.queued:
            raise _nothing_queued(answer.runs)
        write.then(publish, service().producer, answer.messages)
        write.detail = {"asked": wanted, "queued": answer.queued[:SHOWN_RUNS]}
        return present_requested(answer), {"Location": url_for("runs.Run", run_id=answer.queued[0])}

    @blueprint.arguments(RunsQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, RunsSchema)
    @blueprint.problem(503, "The database is away, or needs too long for this (`too_slow`).")
    @blueprint.doc(operationId="list_runs")
    def get(self, query: dict[str, Any]) -> Any:
        """List runs, newest first."""
        if "ids" in query:
            rows = service().database.read(find_runs, query["ids"])
            return present_runs(rows, len(rows))
        cursor = unpack(query["cursor"], RunCursor) if "cursor" in query else None
        limit = query["limit"]
        filters = {name: query[name] for name in RUN_FILTERS if name in query}
        before = None if cursor is None else (cursor.created_at, cursor.run_id)
        # An index leads to runs by each of them and by time; not by two.
        is_direct = len(filters.keys() - {"created_after", "created_before"}) <= 1
        with nullcontext() if is_direct else service().slow.enter():
            rows = service().database.read(list_runs, filters=filters, before=before, limit=limit + 1)
        if not rows and "source_name" in query:
            with naming_a_source():
                service().database.read(check_known, query["source_name"])
        return present_runs(rows, limit)


@blueprint.route("/runs/<uuid:run_id>")
class Run(MethodView):
    """One run."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, RunWithEventsSchema)
    @blueprint.problem(404, "There is no such run.")
    @blueprint.doc(operationId="get_run")
    def get(self, run_id: UUID) -> Any:
        """Show a run, with its counts so far and its events."""
        return service().database.read(_read, run_id)


@blueprint.route("/runs/<uuid:run_id>/batches")
class RunBatches(MethodView):
    """The batches of a run."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, BatchesSchema)
    @blueprint.problem(404, "There is no such run.")
    @blueprint.doc(operationId="list_batches")
    def get(self, run_id: UUID) -> Any:
        """List the batches that records of a run are loaded in: the newest 200, with how far each is."""
        return present_parts(run_id, "batches", *service().database.read(_read_parts, run_id, list_batches))


@blueprint.route("/runs/<uuid:run_id>/requests")
class RunRequests(MethodView):
    """The requests of a run."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, RequestsSchema)
    @blueprint.problem(404, "There is no such run.")
    @blueprint.doc(operationId="list_requests")
    def get(self, run_id: UUID) -> Any:
        """List what a run asked of its source, without what is secret in it: the newest 200."""
        return present_parts(run_id, "requests", *service().database.read(_read_parts, run_id, list_requests))


@blueprint.route("/runs/<uuid:run_id>/events")
class RunEvents(MethodView):
    """What happens to a run."""

    @blueprint.arguments(EventsQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, EventsSchema)
    @blueprint.problem(404, "There is no such run.")
    @blueprint.problem(429, "Two streams are open already.")
    @blueprint.doc(operationId="list_events", responses=also(200, streams.KIND))
    def get(self, query: dict[str, Any], run_id: UUID) -> Any:
        """List the events of a run, in order; with `Accept: text/event-stream` they come as they happen.

        A stream ends with the run, or after a minute; `Last-Event-ID` goes on after an event.
        """
        run = service().database.read(get_run, run_id)
        if streams.is_wanted():
            return streams.stream(run_id, max(query["after"], streams.last_seen()))
        events = service().database.read(events_after, run_id, query["after"], query["limit"])
        return {"run_id": run_id, "status": run.status, "events": [event._asdict() for event in events]}


@blueprint.route("/runs/<uuid:run_id>/cancel")
class RunCancel(MethodView):
    """The end of a run before its time."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.write("cancel_run", Role.OPERATE)
    @blueprint.response(202, RunSchema)
    @blueprint.problem(404, "There is no such run.")
    @blueprint.problem(409, "It has already ended.")
    def post(self, run_id: UUID) -> Any:
        """Cancel a run: no further page or batch of it is stored. What is loaded stays."""
        return present_run(_cancel(current().connection, run_id))


@blueprint.route("/errors")
class Errors(MethodView):
    """What runs have failed of."""

    @blueprint.arguments(ErrorsQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, ErrorGroupsSchema)
    @blueprint.doc(operationId="group_errors")
    def get(self, query: dict[str, Any]) -> Any:
        """Group the failed runs of the last hours by their cause, the commonest first.

        `POST /runs` with `{"error": fingerprint}` tries the sources of a group again.
        """
        with service().slow.enter():
            found = service().database.read(group_errors, timedelta(hours=query["hours"]), query["limit"])
        about = {"since": found.since, "runs_total": found.runs, "is_complete": found.is_complete}
        return {**about, "groups": [row._asdict() for row in found.groups]}


def _meant(connection: Connection, wanted: dict[str, Any]) -> list[str] | None:
    """The sources that a request to run names, None for all; of a group of errors, those that may run."""
    if "error" in wanted:
        failing = sources_failing_of(connection, wanted["error"])
        return chosen_names(connection, Chosen(failing, state=State.RUNNABLE))
    return wanted.get("sources") or ([wanted["source"]] if "source" in wanted else None)


def _read(connection: Connection, run_id: UUID) -> dict[str, Any]:
    return present_run_with_events(get_run(connection, run_id), list_events(connection, run_id))


def _cancel(connection: Connection, run_id: UUID) -> Row[Any]:
    check_cancellable(connection, run_id)
    end_run(connection, run_id, Outcome(Status.CANCELLED, Failure("cancelled", "cancelled over the API")))
    return get_run(connection, run_id)


def _nothing_queued(runs: list[RequestedRun]) -> AlreadyActiveError:
    if not runs:
        return AlreadyActiveError("no source is enabled", code="no_sources")
    active = [str(run.run_id) for run in runs if run.run_id]
    names = ", ".join(run.source.name for run in runs[:5])
    return AlreadyActiveError(f"already active: {names}", active_run_id=active[0] if active else None)


def _read_parts(
    connection: Connection, run_id: UUID, find: Callable[[Connection, UUID], list[Row[Any]]]
) -> tuple[Row[Any], list[Row[Any]]]:
    return get_run(connection, run_id), find(connection, run_id)
