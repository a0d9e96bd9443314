"""Health: the whole picture, and two probes."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask.views import MethodView

from db.queries.alarms import list_alarms
from db.queries.stats import health_counts, source_health
from db.queries.upkeep import count_alive, ping
from etl.breaker import State
from etl.errors import StorageConflictError, StorageUnavailableError, TooSlowError
from etl.share import SET_ASIDE
from messaging import BROKER_ERRORS, broker_answers
from web.blueprints.breakers import declared_host
from web.extensions import Service, service
from web.requests import Resource
from web.schemas.problem import NoQuerySchema
from web.schemas.stats import HealthSchema, ProbeSchema

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

blueprint = Resource("health", __name__, description="Is it well?")

SHOWN_SOURCES = 100


@blueprint.route("/health")
class Health(MethodView):
    """The service and its sources."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, HealthSchema)
    @blueprint.alt_response(503, schema=HealthSchema, description="Unhealthy: the database cannot be reached.")
    def get(self) -> Any:
        """Show the state of the service, failing sources first."""
        parts = service()
        # Redis first: no connection of the pool waits for it.
        broker = broker_answers(parts.producer)
        breakers = _breakers(parts) if broker else None
        try:
            with parts.database.transaction() as connection:
                return _picture(connection, breakers, broker=broker)
        except (StorageUnavailableError, StorageConflictError, TooSlowError) as error:
            return _unhealthy(error.message, broker=broker), HTTPStatus.SERVICE_UNAVAILABLE


@blueprint.route("/health/live")
class Live(MethodView):
    """For a supervisor: is the process worth keeping?"""

    @blueprint.response(200, ProbeSchema)
    def get(self) -> Any:
        """Answer while the process can answer."""
        return {"status": "live"}


@blueprint.route("/health/ready")
class Ready(MethodView):
    """For a load balancer: may requests come?"""

    @blueprint.response(200, ProbeSchema)
    @blueprint.alt_response(503, description="The database cannot be reached.")
    def get(self) -> Any:
        """Answer while the database answers."""
        with service().database.transaction() as connection:
            ping(connection)
        return {"status": "ready"}


def _breakers(parts: Service) -> dict[str, str] | None:
    """The state of every host of which something is remembered, None when nobody knows."""
    try:
        return {host: str(state.circuit.state(now)) for host, (state, now) in parts.hosts.all().items()}
    except BROKER_ERRORS:
        return None


def _picture(connection: Connection, breakers: dict[str, str] | None, *, broker: bool) -> dict[str, Any]:
    counts = health_counts(connection)
    workers = count_alive(connection, "worker")
    reasons = [
        *_reasons(workers, counts.failed, counts.set_aside or [], broker=broker),
        *(a._asdict() for a in list_alarms(connection)),
    ]
    return {
        "status": "degraded" if reasons else "healthy",
        "reasons": reasons,
        "database_connected": True,
        "broker_connected": broker,
        "workers": workers,
        "total_sources": counts.total,
        "successful_sources": counts.successful,
        "failed_sources": counts.failed,
        "sources": [_source(row, breakers) for row in source_health(connection, limit=SHOWN_SOURCES)],
    }


def _reasons(workers: int, failed: int, set_aside: list[str], *, broker: bool) -> list[dict[str, Any]]:
    found = []
    if not broker:
        found.append(_reason("broker_unreachable", "the message broker cannot be reached; runs start when it is back"))
    if not workers:
        found.append(_reason("no_worker", "no worker was seen in the last 30 s"))
    if failed:
        found.append(_reason("sources_failed", f"{failed} source{'s' if failed > 1 else ''} failed last time"))
    if set_aside:
        names = ", ".join(set_aside[:5]) + (", …" if len(set_aside) > 5 else "")
        found.append(_reason(SET_ASIDE, f"set aside, because worker processes died of them: {names}"))
    return found


def _reason(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "since": None}


def _unhealthy(message: str, *, broker: bool) -> dict[str, Any]:
    reasons = [_reason("database_unreachable", message)]
    return {"status": "unhealthy", "reasons": reasons, "database_connected": False, "broker_connected": broker}


def _breaker(url: str | None, breakers: dict[str, str] | None) -> str | None:
    """The state of a source's host."""
    host = declared_host(url)
    return None if host is None or breakers is None else breakers.get(host, str(State.CLOSED))


def _source(row: Row[Any], breakers: dict[str, str] | None) -> dict[str, Any]:
    return {
        "name": row.source_name,
        "type": row.source_type,
        "status": row.active_status or _last_status(row),
        "last_run_at": row.last_run_at,
        "last_success_at": row.last_success_at,
        "checkpoint_value": (row.checkpoint or {}).get("watermark"),
        "breaker": _breaker(row.url, breakers),
        "next_run_at": None if row.gone_reason else row.next_run_at,
        "not_before": row.not_before,
        "not_before_reason": row.not_before_reason if row.not_before else None,
        "gone_reason": row.gone_reason,
    }


def _last_status(row: Row[Any]) -> str:
    if row.set_aside:
        return SET_ASIDE
    if row.gone_reason:
        return "gone"
    return row.last_status or ("skipped" if row.last_run_at else "never_run")
