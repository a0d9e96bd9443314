"""Backfills: ranges of the past, fetched from their sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import marshmallow as ma
from flask import url_for
from flask.views import MethodView

from broker.messaging import publish
from db.queries.backfills import queue_backfill
from db.queries.sources import find_sources, get_declared
from etl.access.roles import Role
from etl.declare.source import parse
from etl.runs.backfills import plan_of
from etl.runs.run_requests import WantedSource, first_refusal
from web.extensions import service
from web.present.backfills import present_plan
from web.requests import Resource
from web.schemas.backfills import BackfillSchema, QueuedBackfillSchema
from web.schemas.problem import NoQuerySchema
from web.writes import current

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

    from etl.runs.backfills import Plan
    from etl.runs.messages import ExtractMessage

blueprint = Resource("backfills", __name__, description="Ranges of the past, fetched from their sources.")


@blueprint.route("/backfills")
class Backfills(MethodView):
    """All backfills."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(BackfillSchema)
    @blueprint.write("start_backfill", Role.OPERATE)
    @blueprint.response(202, QueuedBackfillSchema)
    @blueprint.problem(404, "There is no such source.")
    @blueprint.problem(
        409,
        "The source has an active backfill (`active_run_id`), is disabled, paused or set aside, "
        "or a process of another release is alive.",
    )
    def post(self, wanted: dict[str, Any]) -> Any:
        """Fetch a range of the past from a source, window by window, in one run beside its usual ones.

        The source declares how it is asked for (`backfill`). What a usual run fetches meanwhile wins. Two backfills go
        on at once, others wait; each window that was read is an event of the run. A dry run says how much it would be.
        """
        run_id = uuid4()
        write = current()
        plan, messages = _queue(write.connection, run_id, wanted)
        if wanted["dry_run"]:
            write.is_recorded = False
            return {"run_id": None, **present_plan(plan)}
        write.target, write.detail = wanted["source_name"], {"asked": wanted, "run_id": run_id}
        write.then(publish, service().producer, messages)
        return {"run_id": run_id, **present_plan(plan)}, {"Location": url_for("runs.Run", run_id=run_id)}


def _queue(connection: Connection, run_id: UUID, wanted: dict[str, Any]) -> tuple[Plan, list[ExtractMessage]]:
    source_name = wanted["source_name"]
    source = parse(get_declared(connection, source_name))
    plan = plan_of(source, wanted["start"], wanted["end"], wanted.get("window"), wanted["existing"])
    if wanted["dry_run"]:
        return plan, []
    if refusal := first_refusal([WantedSource(**row._asdict()) for row in find_sources(connection, [source_name])]):
        raise refusal.error
    return plan, queue_backfill(connection, run_id, source_name, plan.span)
