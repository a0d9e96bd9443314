"""Runs: all of them, grouped by what they failed of, and each with what it did."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flask import request

from etl.access.roles import Role
from etl.runs.outcome import ACTIVE, Lane, Status, Trigger
from web.ui.ask import ApiError, act, address, ask
from web.ui.shell import blueprint, done, given, needs, page, refused
from web.ui.shown import moment

if TYPE_CHECKING:
    from flask import Response

FILTERS = ("source_name", "status", "trigger", "lane", "error_code", "error", "created_after", "created_before")
HOURS = (1, 24, 168, 720)


@blueprint.get("/runs")
def runs() -> Response:
    """Runs, newest first."""
    query = {**given((*FILTERS, "cursor")), "limit": 50}
    return page(
        "runs.html",
        section="runs",
        twin=address("/runs", query),
        found=ask("/runs", query),
        filters=given(FILTERS),
        statuses=list(Status),
        triggers=list(Trigger),
        lanes=list(Lane),
    )


@blueprint.get("/errors")
def errors() -> Response:
    """Failed runs by what they failed of."""
    hours = request.args.get("hours", "24")
    query = {"hours": hours}
    return page("errors.html", section="runs", twin=address("/errors", query), found=ask("/errors", query), hours=HOURS)


@blueprint.get("/runs/<uuid:run_id>")
def run(run_id: Any) -> Response:
    """One run."""
    found = ask(f"/runs/{run_id}")
    return page(
        "run.html",
        section="runs",
        twin=f"/runs/{run_id}",
        r=found,
        stages=_stages(found),
        batches=ask(f"/runs/{run_id}/batches")["batches"],
        requests=ask(f"/runs/{run_id}/requests")["requests"],
        is_active=found["status"] in ACTIVE,
    )


def _stages(run: dict[str, Any]) -> list[dict[str, Any]]:
    """How long a run waited, fetched and loaded: each from where to where, of a hundred."""
    marks = (run["started_at"], run["extracted_at"], run["completed_at"])
    now = datetime.now(UTC)
    begin = moment(run["created_at"]) or now
    end = moment(run["completed_at"]) or now
    whole = max((end - begin).total_seconds(), 0.001)
    shown, last = [], begin
    for name, mark in zip(("waiting", "fetching", "loading"), marks, strict=True):
        at = moment(mark) or (max(last, end))
        seconds = max((at - last).total_seconds(), 0.0)
        x = 100 * (last - begin).total_seconds() / whole
        shown.append({"name": name, "seconds": seconds, "x": round(x, 2), "wide": round(100 * seconds / whole, 2)})
        last = at
    return shown


@blueprint.post("/runs/<uuid:run_id>/cancel")
@needs(Role.OPERATE)
def cancel(run_id: Any) -> Any:
    """Cancels it."""
    try:
        act("POST", f"/runs/{run_id}/cancel")
    except ApiError as error:
        return refused(error, "run", run_id=run_id)
    return done("the run is cancelled", "run", run_id=run_id)
