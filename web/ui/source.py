"""A source: how it is and why, its runs, data, rejects, mapping, schema and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import request

from etl.access.roles import Role
from web.ui.ask import ApiError, act, address, ask
from web.ui.shell import blueprint, done, given, needs, page, refused
from web.ui.shown import STATES, length

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Response

TABS = ("status", "runs", "data", "rejects", "mapping", "schema", "settings")


@blueprint.get("/sources/<name>")
@blueprint.get("/sources/<name>/<tab>")
def source(name: str, tab: str = "status") -> Response:
    """One source."""
    found = ask(f"/sources/{name}")
    if tab not in TABS:
        return page("problem.html", 404, title="Not Found", detail=f"a source has no page {tab}")
    twin, values = _PARTS[tab](name, found)
    return page(f"source_{tab}.html", section="sources", twin=twin, s=found, tab=tab, tabs=TABS, **values)


Part = tuple[str, dict[str, Any]]


def _status(name: str, found: dict[str, Any]) -> Part:
    runs: list[dict[str, Any]] = found["recent_runs"]
    seconds = [float(run["seconds"] or 0) for run in runs]
    return f"/sources/{name}/why", {
        "why": ask(f"/sources/{name}/why"),
        "record_bars": [(run["records"], f"{run['records']} records, {run['status']}", _tone(run)) for run in runs],
        "second_bars": [
            (took, f"{length(took)}, {run['status']}", _tone(run)) for run, took in zip(runs, seconds, strict=True)
        ],
        "most_records": max((run["records"] for run in runs), default=0),
        "most_seconds": max(seconds, default=0.0),
    }


def _tone(run: dict[str, Any]) -> str:
    return STATES.get(run["status"], ("", "still"))[1]


def _runs(name: str, _: dict[str, Any]) -> Part:
    query = {"source_name": name, **given(("status", "cursor")), "limit": 50}
    return address("/runs", query), {"found": ask("/runs", query)}


def _data(name: str, _: dict[str, Any]) -> Part:
    query = {"source_name": name, **given(("search", "cursor")), "page_size": 20}
    return address("/data", query), {"found": ask("/data", query)}


def _rejects(name: str, _: dict[str, Any]) -> Part:
    query = {"source_name": name}
    return address("/quarantine/groups", query), {"groups": ask("/quarantine/groups", query)["groups"]}


def _mapping(name: str, _: dict[str, Any]) -> Part:
    versions = ask(f"/sources/{name}/versions", given(("cursor",)))
    return f"/sources/{name}/mappings", {"mappings": ask(f"/sources/{name}/mappings"), "versions": versions}


def _schema(name: str, _: dict[str, Any]) -> Part:
    return f"/sources/{name}/drift", {"drift": ask(f"/sources/{name}/drift")}


def _settings(name: str, _: dict[str, Any]) -> Part:
    return f"/sources/{name}", {}


_PARTS: dict[str, Callable[[str, dict[str, Any]], Part]] = {
    "status": _status,
    "runs": _runs,
    "data": _data,
    "rejects": _rejects,
    "mapping": _mapping,
    "schema": _schema,
    "settings": _settings,
}


@blueprint.post("/sources/<name>/run")
@needs(Role.OPERATE)
def run_source(name: str) -> Any:
    """Runs it now."""
    try:
        answer = act("POST", "/runs", {"source": name, **({"full": True} if request.form.get("full") else {})})
    except ApiError as error:
        return refused(error, "source", name=name)
    return done(f"{name}: a run is queued", "run", run_id=answer["runs"][0]["run_id"])


@blueprint.post("/sources/<name>/pause")
@needs(Role.OPERATE)
def pause_source(name: str) -> Any:
    """Pauses it, until a time if one is given."""
    until = request.form.get("until")
    return _change(name, "pause", {"until": until} if until else {}, "is paused")


@blueprint.post("/sources/<name>/resume")
@needs(Role.OPERATE)
def resume_source(name: str) -> Any:
    """Lets it run again."""
    return _change(name, "resume", {}, "runs again")


def _change(name: str, verb: str, body: dict[str, Any], said: str) -> Any:
    try:
        act("POST", f"/sources/{name}/{verb}", body)
    except ApiError as error:
        return refused(error, "source", name=name)
    return done(f"{name} {said}", "source", name=name)


@blueprint.post("/sources/<name>/delete")
@needs(Role.ADMIN)
def delete_source(name: str) -> Any:
    """Deletes it; its items too, if that is asked for."""
    try:
        query = {"data": "true"} if request.form.get("data") else None
        act("DELETE", f"/sources/{name}", query=query, headers={"If-Match": "*"})
    except ApiError as error:
        return refused(error, "source", name=name, tab="settings")
    return done(f"{name} is deleted", "sources")
