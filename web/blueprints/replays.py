"""Replays: stored records through the mapping of today."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import marshmallow as ma
from flask import url_for
from flask.views import MethodView

from broker.messaging import publish
from db.queries.replays import queue_replay
from db.queries.runs import get_run
from db.queries.sources import check_known
from etl.runs.messages import ExtractMessage
from etl.runs.outcome import Trigger
from etl.runs.replays import Scope
from web.extensions import service
from web.requests import Resource
from web.schemas.problem import NoQuerySchema
from web.schemas.quarantine import QueuedReplaySchema, ReplaySchema

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

blueprint = Resource("replays", __name__, description="Stored records, mapped again.")


@blueprint.route("/replays")
class Replays(MethodView):
    """All replays."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(ReplaySchema)
    @blueprint.response(202, QueuedReplaySchema)
    @blueprint.problem(404, "There is no such source or run.")
    @blueprint.problem(409, "The source has an active replay (`active_run_id`).")
    @blueprint.doc(operationId="start_replay")
    def post(self, wanted: dict[str, Any]) -> Any:
        """Drive stored records of a source through its mapping of today, without asking the source.

        All of them, those stored in a span of time, or those of one run. A newer record is never overwritten by an
        older one. Progress is that of the run.
        """
        run_id, source_name = uuid4(), wanted["source_name"]
        scope = Scope(wanted.get("since"), wanted.get("until"), wanted.get("run_id"))
        service().database.transact(_queue, run_id, source_name, scope)
        publish(service().producer, [ExtractMessage(run_id, low=True)])
        return {"run_id": run_id, "source_name": source_name}, {"Location": url_for("runs.Run", run_id=run_id)}


def _queue(connection: Connection, run_id: UUID, source_name: str, scope: Scope) -> None:
    check_known(connection, source_name)
    if scope.run_id is not None:
        get_run(connection, scope.run_id)
    queue_replay(connection, run_id, source_name, Trigger.REPLAY, scope)
