"""Alerts: what was told, to whom, and what is not to be told."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import marshmallow as ma
from flask.views import MethodView

from db.queries.incidents import list_standing
from db.queries.mutes import list_mutes, put_mute
from db.queries.outbox import add_alert, find_alert, list_alerts
from db.queries.sources import find_sources
from etl.access.roles import Role
from etl.alerts.message import trial_alert
from etl.errors import NoDestinationError
from web.callers import caller
from web.cursors import AlertCursor, unpack
from web.extensions import service
from web.present.alerts import present_alert, present_alerts
from web.requests import Resource
from web.schemas.alerts import SCOPES, AlertSchema, AlertsQuerySchema, AlertsSchema, MuteRequestSchema, MutesSchema
from web.schemas.problem import NoQuerySchema
from web.writes import current

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Connection

blueprint = Resource("alerts", __name__, description="Who is told of what is wrong.")
MOST_LISTED = 100


@blueprint.route("/alerts")
class Alerts(MethodView):
    """All alerts."""

    @blueprint.arguments(AlertsQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, AlertsSchema)
    @blueprint.doc(operationId="list_alerts")
    @blueprint.needs(Role.OPERATE)
    def get(self, query: dict[str, Any]) -> Any:
        """List what stands, and what was told, newest first, with how far each message is on its way."""
        limit: int = query["limit"]
        cursor = unpack(query["cursor"], AlertCursor) if "cursor" in query else None
        before = (cursor.created_at, cursor.alert_id) if cursor else None
        with service().database.transaction() as connection:
            rows = list_alerts(connection, before, limit + 1)
            standing, mutes = list_standing(connection, MOST_LISTED), list_mutes(connection, MOST_LISTED)
        return present_alerts(rows, limit, standing, mutes, service().settings.alert_urls)


@blueprint.route("/alerts/<uuid:alert_id>")
class Alert(MethodView):
    """One alert."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.response(200, AlertSchema)
    @blueprint.problem(404, "There is no such alert.")
    @blueprint.doc(operationId="get_alert")
    @blueprint.needs(Role.OPERATE)
    def get(self, alert_id: UUID) -> Any:
        """Show a message, and whether it was sent."""
        return present_alert(service().database.read(find_alert, alert_id))


@blueprint.route("/alerts/test")
class AlertTest(MethodView):
    """A message that says only that messages arrive."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.write("create_alert", Role.ADMIN)
    @blueprint.response(202, AlertSchema)
    @blueprint.problem(409, "No address is set in `ALERT_URLS`.")
    def post(self) -> Any:
        """Send a test to every address, by way of the outbox; `GET /alerts/{alert_id}` says what became of it."""
        destinations = service().settings.alert_urls
        if not destinations:
            raise NoDestinationError("ALERT_URLS names no address")
        alert, connection = trial_alert(uuid4(), datetime.now(UTC)), current().connection
        add_alert(connection, alert, destinations)
        current().target = f"alert {alert.alert_id}"
        made = present_alert(find_alert(connection, alert.alert_id))
        return made, HTTPStatus.ACCEPTED, {"Location": f"/alerts/{alert.alert_id}"}


@blueprint.route("/alerts/mute")
class AlertMute(MethodView):
    """What nobody wants to be told of."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(MuteRequestSchema)
    @blueprint.write("put_mute", Role.OPERATE)
    @blueprint.response(200, MutesSchema)
    @blueprint.problem(404, "There is no such source.")
    def post(self, wanted: dict[str, Any]) -> Any:
        """Mute everything, a cause, a source, or sources with a tag, until a time; what still stands then is told."""
        connection = current().connection
        scope, subject = _scope(connection, wanted)
        put_mute(connection, scope, subject, wanted["until"], wanted.get("reason"), caller().name)
        current().target, current().detail = f"alerts of {scope} {subject}".strip(), {"until": wanted["until"]}
        return {"mutes": [row._asdict() for row in list_mutes(connection, MOST_LISTED)]}


def _scope(connection: Connection, wanted: dict[str, Any]) -> tuple[str, str]:
    scope = next((name for name in SCOPES if name in wanted), "all")
    if scope == "source":
        find_sources(connection, [wanted[scope]])
    return scope, wanted.get(scope, "") if scope != "all" else ""
