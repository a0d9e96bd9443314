"""Totals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import marshmallow as ma
import msgspec
from flask import Response
from flask.views import MethodView

from db.queries.runs import list_runs
from db.queries.stats import overall, snapshot, source_totals
from web.extensions import service
from web.present.stats import present_stats
from web.requests import Resource
from web.schemas.stats import StatsQuerySchema, StatsSchema

if TYPE_CHECKING:
    from sqlalchemy import Connection

blueprint = Resource("stats", __name__, description="Totals, from counters.")

RECENT_RUNS = 20
MAX_KEPT = 100


@blueprint.route("/stats")
class Stats(MethodView):
    """Totals of all sources."""

    @blueprint.arguments(StatsQuerySchema(), location="query", unknown=ma.RAISE)
    @blueprint.response(200, StatsSchema)
    @blueprint.problem(503, "The database is away, or needs too long for this (`too_slow`).")
    @blueprint.doc(operationId="get_stats")
    def get(self, query: dict[str, Any]) -> Response:
        """Show totals, the sources' statistics and the latest runs."""
        limit, offset = query["page_size"], (query["page"] - 1) * query["page_size"]
        body = service().database.read(_body, limit, offset)
        return Response(body, mimetype="application/json")


def _body(connection: Connection, limit: int, offset: int) -> bytes:
    """The answer as JSON; an earlier one holds until something is written. Dashboards ask often and by dozens."""
    kept = service().kept_stats
    seen = snapshot(connection)
    body, held = kept.get((limit, offset), (b"", ""))
    if seen == held:
        return body
    # The schema describes it; to send every field through it took three times as long as the queries.
    body = msgspec.json.encode(_read(connection, limit, offset))
    if len(kept) >= MAX_KEPT:
        kept.clear()
    kept[limit, offset] = body, seen
    return body


def _read(connection: Connection, limit: int, offset: int) -> dict[str, Any]:
    totals = overall(connection)
    sources = source_totals(connection, limit=limit, offset=offset)
    runs = list_runs(connection, filters={}, before=None, limit=RECENT_RUNS)
    return present_stats(totals, sources, runs)
