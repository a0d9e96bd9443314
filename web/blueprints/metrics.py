"""What Prometheus scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask import Response
from flask.views import MethodView

from broker.messaging import BROKER_ERRORS, queue_lengths
from db.queries import counters, lag, outbox, overview, processes, standing, system
from db.queries.stats import known_items
from etl.errors import StorageError, TooSlowError
from web import metrics
from web.extensions import service
from web.requests import Resource, also
from web.schemas.problem import NoQuerySchema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric
    from sqlalchemy import Connection

    from web.extensions import Service

blueprint = Resource("metrics", __name__, description="For Prometheus.")


@blueprint.route("/metrics")
class Metrics(MethodView):
    """All metrics."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.doc(operationId="get_metrics", responses=also(200, metrics.KIND.partition(";")[0], "string"))
    def get(self) -> Response:
        """Show metrics in Prometheus' text format, also while the database or Redis is away: `kasparro_database_up`."""
        return Response(metrics.exposed(_families(service()), service().database), content_type=metrics.KIND)


def _families(parts: Service) -> Iterator[Metric]:
    # Redis first: no connection of the pool waits for it.
    yield from metrics.of_broker(*_ask_broker(parts))
    try:
        found = parts.database.read(_read)
    except (StorageError, TooSlowError):
        yield metrics.up(database=False)
        return
    yield metrics.up(database=True)
    yield from metrics.of_database(found)


def _ask_broker(parts: Service) -> Any:
    try:
        return queue_lengths(parts.producer), parts.hosts.all()
    except BROKER_ERRORS:
        return {}, None


def _read(connection: Connection) -> dict[str, Any]:
    return {
        "now": standing.database_time(connection),
        "counters": counters.read_counters(connection),
        "sources": overview.count_sources(connection),
        "runs": overview.count_runs(connection),
        "cases": overview.count_open_cases(connection),
        "items": known_items(connection, None, None),
        "lags": lag.longest_lags(connection, metrics.MOST_NAMED),
        "oldest": system.oldest_messages(connection),
        "alive": {kind: processes.count_alive(connection, kind) for kind in ("worker", "beat")},
        "scheduler": processes.last_seen(connection, "beat"),
        "alerts": outbox.count_pending(connection),
        "connections": system.list_connections(connection),
        "bytes": system.versions(connection).database_bytes,
    }
