"""Replays: stored records through the mapping of today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import marshmallow as ma
from flask import url_for
from flask.views import MethodView

from broker.messaging import publish
from db.queries.plans import get_plan, queue_plan
from db.queries.replays import queue_replay
from db.queries.runs import get_run
from db.queries.sources import check_declared
from etl.access.roles import Role
from etl.runs.messages import ExtractMessage, PlanMessage
from etl.runs.outcome import Trigger
from etl.runs.replays import Scope
from web.extensions import service
from web.present.plans import present_plan
from web.requests import Resource
from web.schemas.problem import NoQuerySchema
from web.schemas.replays import PlanSchema, QueuedReplaySchema, ReplaySchema
from web.writes import current

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

blueprint = Resource("replays", __name__, description="Stored records, mapped again.")


@blueprint.route("/replays")
class Replays(MethodView):
    """All replays."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(ReplaySchema)
    @blueprint.write("start_replay", Role.OPERATE)
    @blueprint.response(202, QueuedReplaySchema)
    @blueprint.problem(404, "There is no such source or run.")
    @blueprint.problem(
        409, "The source has an active replay (`active_run_id`), or a process of another release is alive."
    )
    def post(self, wanted: dict[str, Any]) -> Any:
        """Drive stored records of a source through its mapping of today, without asking the source.

        All of them, those stored in a span of time, or those of one run. A newer record is never overwritten by an
        older one. Progress is that of the run. A dry run is no run: it says what would change, and writes nothing.
        """
        new, source_name = uuid4(), wanted["source_name"]
        write = current()
        _queue(write.connection, new, wanted)
        if wanted["dry_run"]:
            write.is_recorded = False
            write.then(publish, service().producer, [PlanMessage(new)])
            answer = {"run_id": None, "plan_id": new, "source_name": source_name}
            return answer, {"Location": url_for("replays.Plan", plan_id=new)}
        write.target, write.detail = source_name, {"asked": wanted, "run_id": new}
        write.then(publish, service().producer, [ExtractMessage(new, low=True)])
        answer = {"run_id": new, "plan_id": None, "source_name": source_name}
        return answer, {"Location": url_for("runs.Run", run_id=new)}


@blueprint.route("/replays/<uuid:plan_id>")
class Plan(MethodView):
    """What a replay would do."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, PlanSchema)
    @blueprint.problem(404, "There is no such plan; plans are kept for a day.")
    @blueprint.doc(operationId="get_plan")
    def get(self, plan_id: UUID) -> Any:
        """Show the plan of a dry run: what would be added, changed by field, and rejected, with samples."""
        return present_plan(service().database.read(get_plan, plan_id))


def _queue(connection: Connection, new: UUID, wanted: dict[str, Any]) -> None:
    source_name, scope = wanted["source_name"], Scope(wanted.get("since"), wanted.get("until"), wanted.get("run_id"))
    check_declared(connection, source_name)
    if scope.run_id is not None:
        get_run(connection, scope.run_id)
    if wanted["dry_run"]:
        queue_plan(connection, new, source_name, scope, wanted.get("sample"))
    else:
        queue_replay(connection, new, source_name, Trigger.REPLAY, scope)
