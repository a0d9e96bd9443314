"""Circuit breakers: which hosts are not called for the moment, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask.views import MethodView

from db.queries.manners import end_pause, postponed_sources
from etl.breaker import State
from etl.errors import BrokerUnavailableError, UnknownHostError
from etl.gate import HostState
from etl.http.address import host_of
from etl.request import fill
from messaging import BROKER_ERRORS
from web.extensions import service
from web.requests import Resource
from web.schemas.breakers import BreakerSchema, BreakersSchema
from web.schemas.problem import NoQuerySchema

if TYPE_CHECKING:
    from sqlalchemy import Connection

blueprint = Resource("breakers", __name__, description="Hosts that failed lately, or asked for a pause.")


@blueprint.route("/breakers")
class Breakers(MethodView):
    """All hosts of which something is remembered."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, BreakersSchema)
    @blueprint.alt_response(503, description="The broker, which keeps them, cannot be reached.")
    def get(self) -> Any:
        """List hosts, those that are not called first."""
        try:
            states = service().hosts.all()
        except BROKER_ERRORS as error:
            raise BrokerUnavailableError("the message broker cannot be reached") from error
        shown = [present(host, state, now) for host, (state, now) in states.items()]
        return {"breakers": sorted(shown, key=lambda one: (one["state"] == State.CLOSED, one["host"]))}


@blueprint.route("/breakers/<host>/reset")
class BreakerReset(MethodView):
    """The end of waiting for a host."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, BreakerSchema)
    @blueprint.alt_response(404, description="Nothing is remembered about this host.")
    @blueprint.alt_response(503, description="The broker, which keeps them, cannot be reached.")
    def post(self, host: str) -> Any:
        """Close the breaker of a host, and end its pause and those of its sources: the next call goes out at once."""
        parts = service()
        try:
            found = parts.hosts.reset(host)
        except BROKER_ERRORS as error:
            raise BrokerUnavailableError("the message broker cannot be reached") from error
        ended = parts.database.transact(_end_pauses, host)
        if found is None and not ended:
            raise UnknownHostError(f"nothing is remembered about {host!r}")
        return present(host, *(found or (HostState(), 0.0)))


def _end_pauses(connection: Connection, host: str) -> list[str]:
    """End what this host asked of its sources; their names."""
    names = [row.name for row in postponed_sources(connection) if declared_host(row.url) == host]
    end_pause(connection, names)
    return names


def declared_host(url: str | None) -> str | None:
    """The host of a declared address, None when it cannot be told."""
    if url is None:
        return None
    try:
        return host_of(fill(url, service().settings.environment))
    except (KeyError, ValueError):
        return None


def present(host: str, state: HostState, now: float) -> dict[str, Any]:
    """A host as the API shows it."""
    circuit, budget = state.circuit, state.budget
    is_open = circuit.state(now) is not State.CLOSED
    return {
        "host": host,
        "state": circuit.state(now),
        "failures": circuit.failures,
        "opened_at": _time(circuit.opened_at) if is_open else None,
        "retry_at": _time(circuit.open_until) if is_open else None,
        "probing": bool(circuit.probe) and now < circuit.probe_until,
        "reason": circuit.reason or None,
        "paused_until": _time(budget.paused_until) if budget.paused_until > now else None,
        "pause_reason": budget.reason if budget.paused_until > now else None,
    }


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
