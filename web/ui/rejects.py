"""Rejects: what was wrong with records, and what is done about it."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import flash, redirect, request

from etl.access.roles import Role
from web.ui.ask import ApiError, act, address, ask
from web.ui.shell import back, blueprint, done, given, needs, page, refused

if TYPE_CHECKING:
    from flask import Response

FILTERS = ("source_name", "field", "rule")
# No id is longer.
LONGEST_ID = 19
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
    query = {**given((*FILTERS, "run_id", "state", "cursor")), "limit": 50}
    found = ask("/quarantine", query)
    filters = given((*FILTERS, "run_id"))
    twin = address("/quarantine", query)
    return page("cases.html", section="rejects", twin=twin, found=found, filters=filters, all_states=STATES)


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
    if chosen is None:
        return _nothing()
    try:
        answer = act("POST", "/quarantine/redrive", {**chosen, "dry_run": not request.form.get("sure")})
    except ApiError as error:
        return refused(error)
    if not request.form.get("sure"):
        return page("redrive.html", section="rejects", chosen=chosen, answer=answer)
    return done(f"{answer['cases']} records are driven again", "run", run_id=answer["run_id"])


@blueprint.post("/rejects/discard")
@needs(Role.OPERATE)
def discard() -> Any:
    """Puts records away, with a reason: those alone that were chosen."""
    chosen = _chosen()
    if chosen is None or "ids" not in chosen:
        return _nothing()
    try:
        answer = act("POST", "/quarantine/discard", {**chosen, "reason": request.form.get("reason", "")})
    except ApiError as error:
        return refused(error)
    return done(f"{answer['discarded']} records are put away", "rejects", source_name=chosen["source_name"])


def _nothing() -> Any:
    flash("Choose some records first.", "refused")
    return redirect(back(), HTTPStatus.SEE_OTHER)


def _chosen() -> dict[str, Any] | None:
    """Records by their ids, or all with a cause; None where neither is said."""
    form = request.form
    ids = [int(one) for one in form.getlist("ids") if one.isdecimal() and len(one) < LONGEST_ID]
    if ids:
        return {"source_name": form.get("source_name", ""), "ids": ids}
    if "field" not in form and "rule" not in form:
        return None
    return {name: form[name] for name in FILTERS if name in form}
