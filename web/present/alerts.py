"""Alerts as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from etl.alerts.cause import Cause
from web.cursors import AlertCursor, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from etl.alerts.destination import Destination


def present_alert(row: Row[Any]) -> dict[str, Any]:
    """A message, and how far it is."""
    shown = row._asdict()
    facts = shown.pop("facts")
    causes = [{**cause, "since": datetime.fromisoformat(cause["since"])} for cause in facts["causes"]]
    deliveries = [_delivery(one) for one in shown["deliveries"]]
    more = {"causes": causes, "sources": facts["sources"], "sources_total": facts["sources_total"]}
    return {**shown, **more, "deliveries": deliveries}


def _delivery(delivery: dict[str, Any]) -> dict[str, Any]:
    times = {name: delivery[name] and datetime.fromisoformat(delivery[name]) for name in ("due_at", "sent_at")}
    return {**delivery, **times}


def present_alerts(
    rows: Sequence[Row[Any]],
    limit: int,
    standing: Sequence[Row[Any]],
    mutes: Sequence[Row[Any]],
    destinations: Sequence[Destination],
) -> dict[str, Any]:
    """A page of messages with what stands; one row more than fits says that another page follows."""
    shown = rows[:limit]
    more = pack(AlertCursor(shown[-1].created_at, shown[-1].alert_id)) if len(rows) > limit else None
    return {
        "standing": list(map(_standing, standing)),
        "alerts": list(map(present_alert, shown)),
        "next_cursor": more,
        "destinations": [{"name": one.name, "tags": sorted(one.tags)} for one in destinations],
        "mutes": [row._asdict() for row in mutes],
    }


def _standing(row: Row[Any]) -> dict[str, Any]:
    shown, cause = row._asdict(), Cause.of_key(row.cause)
    shown |= {"kind": cause.kind, "subject": cause.subject or None}
    return {**shown, "incident": shown.pop("incident_id"), "sources": shown.pop("names")}
