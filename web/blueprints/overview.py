"""Is it well? And what does it consist of?"""

from __future__ import annotations

import platform
from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask.views import MethodView

from broker.messaging import BROKER_ERRORS, queue_lengths
from db.queries import overview, system
from db.queries.errors_grouped import group_errors
from etl.hosts.breaker import State
from etl.runs.messages import QUEUES
from web.blueprints.health import ask_broker, read_health
from web.extensions import service
from web.present.health import present_health
from web.present.overview import present_overview, present_system
from web.requests import Resource
from web.schemas.overview import OverviewSchema, SystemSchema
from web.schemas.problem import NoQuerySchema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from web.extensions import Service

blueprint = Resource("overview", __name__, description="How the service is, and what it consists of.")
# Runs that failed of something within this time need attention, if their sources still fail.
ATTENTION = timedelta(hours=24)
MOST_CAUSES = 20


@blueprint.route("/overview")
class Overview(MethodView):
    """All at a glance."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, OverviewSchema)
    @blueprint.problem(503, "The database is away.")
    @blueprint.doc(operationId="get_overview")
    def get(self) -> Any:
        """Show how sources and runs are, how the runs of 48 hours ended, and what needs attention, by its cause."""
        parts = service()
        broker = ask_broker(parts)
        is_scheduling = parts.settings.enable_scheduler
        found = parts.database.read(_read_overview, is_scheduling=is_scheduling)
        health = present_health(found.pop("health"), broker, parts.settings.environment)
        breakers = broker.breakers
        is_open = None if breakers is None else sum(state is not State.CLOSED for state in breakers.values())
        return present_overview(health, open_breakers=is_open, **found)


@blueprint.route("/system")
class System(MethodView):
    """The parts of the service."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, SystemSchema)
    @blueprint.problem(503, "The database is away, or needs too long for this (`too_slow`).")
    @blueprint.doc(operationId="get_system")
    def get(self) -> Any:
        """Show processes, queues, connections, and tables: how they grow and how long they are kept; and versions."""
        parts = service()
        lengths = _lengths(parts)
        with parts.slow.enter():
            found = parts.database.read(_read_system)
        python = {"python": platform.python_version()}
        packages = {name: version(name) for name in ("celery", "flask", "sqlalchemy", "redis")}
        return present_system(lengths, parts.settings, python | packages, **found)


def _lengths(parts: Service) -> Mapping[str, int | None]:
    try:
        return queue_lengths(parts.producer)
    except BROKER_ERRORS:
        return dict.fromkeys(QUEUES)


def _read_overview(connection: Connection, *, is_scheduling: bool) -> dict[str, Any]:
    return {
        "health": read_health(connection, is_scheduling=is_scheduling),
        "sources": overview.count_sources(connection),
        "runs": overview.count_runs(connection),
        "cases": overview.count_open_cases(connection),
        "hours": overview.runs_by_hour(connection),
        "errors": group_errors(connection, ATTENTION, MOST_CAUSES),
    }


def _read_system(connection: Connection) -> dict[str, Any]:
    return {
        "processes": system.list_processes(connection),
        "oldest": system.oldest_messages(connection),
        "connections": system.list_connections(connection),
        "tables": system.list_tables(connection),
        "versions": system.versions(connection),
    }
