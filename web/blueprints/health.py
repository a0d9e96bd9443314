"""Health: the whole picture, and two probes."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask.views import MethodView

from broker.messaging import BROKER_ERRORS, broker_answers
from broker.trouble import broker_trouble, noted_trouble
from db.queries.alarms import list_alarms
from db.queries.failures import failing_batches
from db.queries.fields import drifted
from db.queries.processes import count_alive, last_seen, ping
from db.queries.slots import overdue_slots
from db.queries.stats import health_counts, source_health
from etl.errors import StorageError, TooSlowError
from web.extensions import Service, service
from web.present.health import BrokerView, DatabaseView, present_health, present_unhealthy
from web.requests import Resource
from web.schemas.problem import NoQuerySchema
from web.schemas.stats import HealthSchema, ProbeSchema

if TYPE_CHECKING:
    from sqlalchemy import Connection

blueprint = Resource("health", __name__, description="Is it well?")

SHOWN_SOURCES = 100


@blueprint.route("/health")
class Health(MethodView):
    """The service and its sources."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, HealthSchema)
    @blueprint.alt_response(503, schema=HealthSchema, description="Unhealthy: the database cannot be reached.")
    @blueprint.doc(operationId="get_health")
    def get(self) -> Any:
        """Show the state of the service, failing sources first."""
        parts = service()
        # Redis first: no connection of the pool waits for it.
        broker = ask_broker(parts)
        try:
            with parts.database.transaction() as connection:
                database = read_health(connection, is_scheduling=parts.settings.enable_scheduler)
        except (StorageError, TooSlowError) as error:
            return present_unhealthy(error.message, broker), HTTPStatus.SERVICE_UNAVAILABLE
        return present_health(database, broker, parts.settings.environment)


@blueprint.route("/health/live")
class Live(MethodView):
    """For a supervisor: is the process worth keeping?"""

    @blueprint.response(200, ProbeSchema)
    @blueprint.doc(operationId="get_liveness")
    def get(self) -> Any:
        """Answer while the process can answer."""
        return {"status": "live"}


@blueprint.route("/health/ready")
class Ready(MethodView):
    """For a load balancer: may requests come?"""

    @blueprint.response(200, ProbeSchema)
    @blueprint.problem(503, "The database cannot be reached.")
    @blueprint.doc(operationId="get_readiness")
    def get(self) -> Any:
        """Answer while the database answers."""
        with service().database.transaction() as connection:
            ping(connection)
        return {"status": "ready"}


def ask_broker(parts: Service) -> BrokerView:
    """Whether the broker answers, what it remembers of hosts, and what is too full."""
    if not broker_answers(parts.producer):
        return BrokerView(connected=False)
    try:
        breakers = {host: state.circuit.state(now) for host, (state, now) in parts.hosts.all().items()}
        trouble, noted = broker_trouble(parts.producer), noted_trouble(parts.producer)
    except BROKER_ERRORS:
        return BrokerView(connected=True)
    return BrokerView(connected=True, breakers=breakers, trouble=trouble, database_trouble=noted)


def read_health(connection: Connection, *, is_scheduling: bool) -> DatabaseView:
    """What the database says of the state of the service."""
    return DatabaseView(
        counts=health_counts(connection),
        workers=count_alive(connection, "worker"),
        alarms=list_alarms(connection),
        failing=failing_batches(connection),
        overdue=overdue_slots(connection) if is_scheduling else None,
        scheduler_seen_at=last_seen(connection, "beat"),
        sources=source_health(connection, limit=SHOWN_SOURCES),
        drifted=drifted(connection),
    )
