"""Replays and backfills: what is stored driven again, and ranges of the past fetched."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import redirect, request, url_for

from etl.access.roles import Role
from web.ui.ask import ApiError, act, address, ask
from web.ui.shell import blueprint, done, given, needs, page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask import Response


@blueprint.get("/replays")
def replays() -> Response:
    """The last ones, and a form for another."""
    return _page()


def _page(plan: dict[str, Any] | None = None, wrong: Sequence[str] = ()) -> Response:
    """With what was typed, if it was not good or is to be seen first."""
    typed = request.form or request.args
    query = {"lane": "replay", **given(("source_name",)), "limit": 20}
    return page(
        "replays.html",
        HTTPStatus.UNPROCESSABLE_ENTITY if wrong else HTTPStatus.OK,
        section="replays",
        twin=address("/runs", query),
        replays=ask("/runs", query)["runs"],
        others=ask("/runs", {**query, "lane": "backfill"})["runs"],
        plan=plan,
        typed=typed,
        wrong=wrong,
    )


@blueprint.get("/replays/<uuid:plan_id>")
def plan(plan_id: Any) -> Response:
    """What a replay would change."""
    return page("plan.html", section="replays", twin=f"/replays/{plan_id}", p=ask(f"/replays/{plan_id}"))


@blueprint.post("/replays")
@needs(Role.OPERATE)
def replay() -> Any:
    """Replays, or says what that would change."""
    body: dict[str, Any] = given(("source_name", "since", "until", "run_id"), request.form)
    try:
        answer = act("POST", "/replays", {**body, "dry_run": "dry_run" in request.form})
    except ApiError as error:
        return _page(wrong=error.lines)
    if answer.get("plan_id"):
        return redirect(url_for("ui.plan", plan_id=answer["plan_id"]), 303)
    return done("the replay is queued", "run", run_id=answer["run_id"])


@blueprint.post("/backfills")
@needs(Role.OPERATE)
def backfill() -> Any:
    """Fetches a range of the past, or says how much that would be."""
    body: dict[str, Any] = given(("source_name", "from", "to", "window"), request.form)
    try:
        answer = act("POST", "/backfills", {**body, "dry_run": "dry_run" in request.form})
    except ApiError as error:
        return _page(wrong=error.lines)
    if answer.get("run_id"):
        return done("the backfill is queued", "run", run_id=answer["run_id"])
    return _page(answer)
