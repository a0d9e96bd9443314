"""Circuit breakers: which hosts are not called for the moment, and why."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask.views import MethodView

from broker.messaging import BROKER_ERRORS
from db.queries.host_list import declared_addresses, latencies
from db.queries.polling_hints import clear_server_wait, postponed_sources
from etl.access.roles import Role
from etl.errors import BrokerUnavailableError, UnknownHostError
from etl.hosts.limiter import HostState
from etl.http.address import declared_host
from web.extensions import service
from web.present.hosts import present_asked_hosts, present_host, present_hosts
from web.requests import Resource
from web.schemas.breakers import BreakerSchema, BreakersSchema
from web.schemas.overview import HostsSchema
from web.schemas.problem import NoQuerySchema
from web.writes import current

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Row

blueprint = Resource("breakers", __name__, description="Hosts that failed lately, or asked for a pause.")


@blueprint.route("/breakers")
class Breakers(MethodView):
    """All hosts of which something is remembered."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, BreakersSchema)
    @blueprint.problem(503, "The broker, which keeps them, cannot be reached.")
    @blueprint.doc(operationId="list_breakers")
    def get(self) -> Any:
        """List hosts, those that are not called first."""
        with _reaching_broker():
            return present_hosts(service().hosts.all())


@blueprint.route("/hosts")
class Hosts(MethodView):
    """All hosts that sources are read from."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, HostsSchema)
    @blueprint.problem(503, "The broker, which keeps what is remembered of them, cannot be reached.")
    @blueprint.doc(operationId="list_hosts")
    def get(self) -> Any:
        """List the hosts of enabled sources: breaker, budget, how quickly they answer, and whose they are."""
        parts = service()
        with _reaching_broker():
            states = parts.hosts.all()
        addresses, took = parts.database.read(_asked_hosts)
        sources: dict[str, list[str]] = {}
        for row in addresses:
            if host := declared_host(row.url, parts.settings.environment):
                sources.setdefault(host, []).append(row.name)
        return present_asked_hosts(sources, states, took)


@blueprint.route("/breakers/<host>/reset")
class BreakerReset(MethodView):
    """The end of waiting for a host."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.write("reset_breaker", Role.OPERATE)
    @blueprint.response(200, BreakerSchema)
    @blueprint.problem(404, "Nothing is remembered about this host.")
    @blueprint.problem(503, "The broker, which keeps them, cannot be reached.")
    def post(self, host: str) -> Any:
        """Close the breaker of a host, and end its pause and those of its sources: the next call goes out at once."""
        parts = service()
        ended = _end_pauses(current().connection, host, parts.settings.environment)
        # Last, as it cannot be rolled back.
        with _reaching_broker():
            found = parts.hosts.reset(host)
        if found is None and not ended:
            raise UnknownHostError(f"nothing is remembered about {host!r}")
        current().target, current().detail = f"host {host}", {"sources": ended}
        return present_host(host, *(found or (HostState(), 0.0)))


@contextmanager
def _reaching_broker() -> Iterator[None]:
    try:
        yield
    except BROKER_ERRORS as error:
        raise BrokerUnavailableError("the message broker cannot be reached") from error


def _asked_hosts(connection: Connection) -> tuple[list[Row[Any]], dict[str, Row[Any]]]:
    return declared_addresses(connection), latencies(connection)


def _end_pauses(connection: Connection, host: str, environment: Mapping[str, str]) -> list[str]:
    """End what this host asked of its sources; their names."""
    names = [row.name for row in postponed_sources(connection) if declared_host(row.url, environment) == host]
    clear_server_wait(connection, names)
    return names
