"""Rejects: what was wrong with records, and what is done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import request

from etl.access.roles import Role
from web.ui.ask import ApiError, act, address, ask
from web.ui.shell import blueprint, done, given, needs, page, refused

if TYPE_CHECKING:
    from flask import Response

FILTERS = ("source_name", "field", "rule")
STATES = ("open", "redriven", "discarded", "superseded")


@blueprint.get("/rejects")
def rejects() -> Response:
    """Open rejects, by their cause."""
    query = given(("source_name",))
    twin = address("/quarantine/groups", query)
    return page(
        "rejects.html", section="rejects", twin=twin, groups=ask("/quarantine/groups", query)["groups"], filters=query
    )


@blueprint.get("/rejects/cases")
def cases() -> Response:
    """Rejected records, one by one."""
    query = {**given((*FILTERS, "state", "cursor")), "limit": 50}
    found = ask("/quarantine", query)
    twin = address("/quarantine", query)
    return page("cases.html", section="rejects", twin=twin, found=found, filters=given(FILTERS), all_states=STATES)


@blueprint.get("/rejects/<int:case_id>")
def case(case_id: int) -> Response:
    """One rejected record."""
    found = ask(f"/quarantine/{case_id}")
    return page("case.html", section="rejects", twin=f"/quarantine/{case_id}", c=found)


@blueprint.post("/rejects/redrive")
@needs(Role.OPERATE)
def redrive() -> Any:
    """Drives records again by today's mapping; first says how many that would be."""
    chosen = _chosen()
    try:
        answer = act("POST", "/quarantine/redrive", {**chosen, "dry_run": not request.form.get("sure")})
    except ApiError as error:
        return refused(error, "rejects")
    if not request.form.get("sure"):
        return page("redrive.html", section="rejects", chosen=chosen, answer=answer)
    if answer.get("run_id"):
        return done(f"{answer['cases']} records are driven again", "run", run_id=answer["run_id"])
    return done("none of them can be driven again", "rejects")


@blueprint.post("/rejects/discard")
@needs(Role.OPERATE)
def discard() -> Any:
    """Puts records away, with a reason."""
    try:
        answer = act("POST", "/quarantine/discard", {**_chosen(), "reason": request.form.get("reason", "")})
    except ApiError as error:
        return refused(error, "rejects")
    return done(f"{answer['discarded']} records are put away", "rejects")


def _chosen() -> dict[str, Any]:
    ids = [int(one) for one in request.form.getlist("ids") if one.isdecimal()]
    names = ("source_name",) if ids else FILTERS
    filters: dict[str, Any] = {name: request.form[name] for name in names if name in request.form}
    return filters | ({"ids": ids} if ids else {})
