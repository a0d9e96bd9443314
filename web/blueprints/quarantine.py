"""Quarantine: rejected records, driven again or put away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import marshmallow as ma
from flask import url_for
from flask.views import MethodView

from broker.messaging import publish
from db.queries.quarantine import Cases, count_cases, discard_cases, get_case, group_cases, list_cases
from db.queries.replays import queue_replay
from db.queries.sources import check_declared, check_known
from etl.access.roles import Role
from etl.errors import NothingToReplayError, UnknownCaseError
from etl.runs.messages import ExtractMessage
from etl.runs.outcome import Trigger
from etl.runs.replays import CaseFilter, Scope
from web.extensions import service
from web.present.quarantine import present_case, present_cases, present_groups
from web.requests import MAX_ID, Resource
from web.schemas.problem import NoQuerySchema
from web.schemas.quarantine import (
    CaseDetailSchema,
    CasesQuerySchema,
    CasesSchema,
    DiscardedSchema,
    DiscardSchema,
    GroupsQuerySchema,
    GroupsSchema,
    RedrivenSchema,
    RedriveSchema,
)
from web.writes import current

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from db.queries.quarantine import Meant

blueprint = Resource("quarantine", __name__, description="Rejected records: kept, explained, driven again.")
_FILTERS = ("source_name", "field", "rule", "run_id", "state", "ids")


@blueprint.route("/quarantine")
class Quarantine(MethodView):
    """All cases."""

    @blueprint.arguments(CasesQuerySchema(), location="query", unknown=ma.RAISE)
    @blueprint.response(200, CasesSchema)
    @blueprint.problem(503, "The database is away, or needs too long for this (`too_slow`).")
    @blueprint.doc(operationId="list_cases")
    def get(self, query: dict[str, Any]) -> Any:
        """List rejected records, newest first; those that are open, unless another state is asked for."""
        limit: int = query["limit"]
        with service().slow.enter():
            rows = service().database.read(list_cases, _wanted(query), query.get("cursor"), limit + 1)
        return present_cases(rows, limit)


@blueprint.route("/quarantine/groups")
class Groups(MethodView):
    """Cases by cause."""

    @blueprint.arguments(GroupsQuerySchema(), location="query", unknown=ma.RAISE)
    @blueprint.response(200, GroupsSchema)
    @blueprint.problem(503, "The database is away, or needs too long for this (`too_slow`).")
    @blueprint.doc(operationId="group_cases")
    def get(self, query: dict[str, Any]) -> Any:
        """Count open cases by source, field and rule, the commonest cause first, each with a sample."""
        with service().slow.enter():
            return present_groups(service().database.read(group_cases, query.get("source_name"), query["limit"]))


@blueprint.route("/quarantine/<int:case_id>")
class Case(MethodView):
    """One case."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, CaseDetailSchema)
    @blueprint.problem(404, "There is no such case.")
    @blueprint.doc(operationId="get_case")
    def get(self, case_id: int) -> Any:
        """Show a rejected record as the source gave it, and every rule that it broke."""
        if case_id > MAX_ID:
            raise UnknownCaseError(f"there is no case {case_id}")
        return present_case(service().database.read(get_case, case_id))


@blueprint.route("/quarantine/redrive")
class Redrive(MethodView):
    """Rejected records through the mapping of today."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(RedriveSchema)
    @blueprint.write("redrive_cases", Role.OPERATE)
    @blueprint.response(202, RedrivenSchema)
    @blueprint.problem(404, "There is no such source.")
    @blueprint.problem(
        409, "The source has an active replay (`active_run_id`), or a process of another release is alive."
    )
    def post(self, wanted: dict[str, Any]) -> Any:
        """Drive open cases of a source again, from what is stored: all, those with a cause, or some by id.

        Those that fit now are loaded, the others stay open. With `dry_run` they are only counted.
        """
        run_id = uuid4()
        write = current()
        meant = _redrive(write.connection, run_id, wanted)
        if wanted["dry_run"]:
            write.is_recorded = False
            return {**vars(meant), "run_id": None}
        write.target, write.detail = wanted["source_name"], {"asked": wanted, "run_id": run_id, **vars(meant)}
        write.then(publish, service().producer, [ExtractMessage(run_id, low=True)])
        return {**vars(meant), "run_id": run_id}, {"Location": url_for("runs.Run", run_id=run_id)}


@blueprint.route("/quarantine/discard")
class Discard(MethodView):
    """Rejected records put away."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(DiscardSchema)
    @blueprint.write("discard_cases", Role.OPERATE)
    @blueprint.response(200, DiscardedSchema)
    @blueprint.problem(404, "There is no such source.")
    def post(self, wanted: dict[str, Any]) -> Any:
        """Put open cases of a source away, with a reason. The same content stays away when it comes again."""
        write = current()
        discarded = _discard(write.connection, wanted)
        write.target, write.detail = wanted["source_name"], {"asked": wanted, "discarded": discarded}
        return {"discarded": discarded}


def _wanted(given: dict[str, Any]) -> Cases:
    return Cases(**{name: given[name] for name in _FILTERS if name in given})


def _redrive(connection: Connection, run_id: UUID, wanted: dict[str, Any]) -> Meant:
    check_declared(connection, wanted["source_name"])
    meant = count_cases(connection, _wanted(wanted))
    if meant.cases == meant.not_redrivable:
        kept = "none of them has a stored record" if meant.cases else "no open case is meant"
        raise NothingToReplayError(f"there is nothing to drive again: {kept}")
    if not wanted["dry_run"]:
        chosen = CaseFilter(wanted.get("ids"), wanted.get("field"), wanted.get("rule"))
        queue_replay(connection, run_id, wanted["source_name"], Trigger.REDRIVE, Scope(cases=chosen))
    return meant


def _discard(connection: Connection, wanted: dict[str, Any]) -> int:
    check_known(connection, wanted["source_name"])
    return discard_cases(connection, _wanted(wanted), wanted["reason"])
