"""Overview: is it well, and what needs attention?"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import flash, redirect, request

from etl.access.roles import Role
from web.extensions import service
from web.ui.ask import ApiError, act, ask
from web.ui.shell import back, blueprint, needs, page, refused

if TYPE_CHECKING:
    from flask import Response

# How runs end, in the order in which a bar is built.
OUTCOMES = ("failed", "partial", "success")


@blueprint.get("/overview")
def overview() -> Response:
    """All at a glance."""
    found = ask("/overview")
    told = bool(service().settings.alert_urls)
    hours = _hours(found["hours"])
    return page("overview.html", section="overview", twin="/overview", o=found, hours=hours, is_told=told)


def _hours(hours: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each hour as bars that stand on each other: where each begins, and how high it is, of a hundred."""
    most = max((sum(hour["runs"].get(name, 0) for name in OUTCOMES) for hour in hours), default=0) or 1
    shown = []
    for number, hour in enumerate(hours):
        bars, below = [], 0.0
        for name in OUTCOMES:
            high = 100 * hour["runs"].get(name, 0) / most
            bars.append({"name": name, "y": round(100 - below - high, 2), "high": round(high, 2)})
            below += high
        told = ", ".join(f"{hour['runs'].get(name, 0)} {name}" for name in reversed(OUTCOMES))
        shown.append({"hour": hour["hour"], "x": 10 * number, "bars": bars, "told": told})
    return shown


@blueprint.post("/retry")
@needs(Role.OPERATE)
def retry() -> Any:
    """Runs all sources again that fail of one cause."""
    try:
        answer = act("POST", "/runs", {"error": request.form.get("error", "")})
    except ApiError as error:
        return refused(error)
    number = answer["queued_total"]
    flash(f"{number} run{'s are' if number != 1 else ' is'} queued")
    return redirect(back(), HTTPStatus.SEE_OTHER)
