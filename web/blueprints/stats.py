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
from web.present import present_run
from web.requests import Resource
from web.schemas.stats import StatsQuerySchema, StatsSchema

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

blueprint = Resource("stats", __name__, description="Totals, from counters.")

RECENT_RUNS = 20
MAX_KEPT = 100


@blueprint.route("/stats")
class Stats(MethodView):
    """Totals of all sources."""

    @blueprint.arguments(StatsQuerySchema(), location="query", unknown=ma.RAISE)
    @blueprint.response(200, StatsSchema)
    @blueprint.alt_response(503, description="The database is away, or needs too long for this (`too_slow`).")
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
    runs = list_runs(connection, source_name=None, status=None, before=None, limit=RECENT_RUNS)
    return {
        "total_records": totals.items,
        "total_sources": totals.sources,
        "active_sources": totals.active,
        "records_by_source_type": totals.by_type,
        "source_statistics": [_statistics(row) for row in sources],
        "recent_runs": [present_run(row) for row in runs],
        "last_etl_success": totals.last_success_at,
        "last_etl_failure": totals.last_failure_at,
        "avg_etl_duration_seconds": None if totals.average_seconds is None else round(totals.average_seconds, 3),
    }


def _statistics(row: Row[Any]) -> dict[str, Any]:
    judged = row.success + row.partial + row.failed
    return {
        "source_name": row.source_name,
        "source_type": row.source_type,
        "total_records": row.items,
        "success_rate": round(100 * row.success / judged, 2) if judged else None,
        "total_runs": row.runs,
        "avg_records_per_run": round(row.extracted / judged, 2) if judged else None,
        "last_success_at": row.last_success_at,
        "last_failure_at": row.last_failure_at,
    }
