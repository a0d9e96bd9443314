"""Sources: which there are, how each is, and what is done to many of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import flash, redirect, request

from etl.access.roles import Role
from etl.runs.outcome import Status
from web.ui.ask import ApiError, act, address, ask
from web.ui.shell import back, blueprint, done, given, needs, page, refused

if TYPE_CHECKING:
    from flask import Response

FILTERS = ("state", "type", "name", "tags")
# The filters that are offered with how many there are; the counts by the names that the API gives them.
SHOWN = (
    ("", "all", "total"),
    ("failing", "failing", "failing"),
    ("late", "late", "late"),
    ("paused", "paused", "paused"),
    ("set_aside", "set aside", "set_aside"),
    ("gone", "gone", "gone"),
    ("disabled", "disabled", "disabled"),
)
_WENT_WELL = frozenset({Status.SUCCESS, Status.PARTIAL})


@blueprint.get("/sources")
def sources() -> Response:
    """All sources, a page at a time."""
    query = {**given((*FILTERS, "cursor")), "limit": 50}
    found = ask("/sources", {**query, "details": "true"})
    for one in found["sources"]:
        one["usual"] = _usual(one["recent_runs"])
    return page(
        "sources.html",
        section="sources",
        twin=address("/sources", query),
        found=found,
        filters=given(FILTERS),
        shown=SHOWN,
    )


def _usual(runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """How many records the last whole run met, and the median of those before."""
    # One that met nothing, as nothing was new, says nothing of how many there are.
    sizes = [run["records"] for run in runs if run["records"] and run["status"] in _WENT_WELL]
    if not sizes:
        return None
    before = sorted(sizes[:-1])
    return {"last": sizes[-1], "usual": before[len(before) // 2] if before else None}


@blueprint.post("/sources")
@needs(Role.OPERATE)
def bulk() -> Any:
    """Does something to many sources: first says to how many, then does it."""
    form = request.form
    filters = given(FILTERS, form)
    names = form.getlist("names")
    body: dict[str, Any] = {"action": form.get("action", "")}
    if not names and not form.get("all"):
        flash("Choose some sources, or all that match.", "refused")
        return redirect(back(), HTTPStatus.SEE_OTHER)
    if form.get("all"):
        body["filter"] = {**filters, **({"tags": filters["tags"].split(",")} if "tags" in filters else {})}
    else:
        body["names"] = names
    if body["action"] == "pause" and form.get("until"):
        # A field of a form has no zone, where no script has given it one.
        body["until"] = form["until"] if form["until"].endswith("Z") else form["until"] + "Z"
    try:
        answer = act("POST", "/sources/bulk", {**body, "dry_run": not form.get("sure")})
    except ApiError as error:
        return refused(error, "sources", **filters)
    if not form.get("sure"):
        return page("bulk.html", section="sources", body=body, answer=answer, filters=filters, names=names)
    return done(f"{body['action']}: done to {answer['done']} of {answer['matched']} sources", "sources", **filters)
