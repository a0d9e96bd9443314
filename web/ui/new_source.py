"""A new source in three steps: what it is, a preview of it, and its schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import request

from etl.access.roles import Role
from etl.declare.catalog import read_foreign_yaml
from etl.declare.listing import slug
from etl.declare.source import parse
from etl.errors import ConfigError
from etl.runs.schedule import next_slot
from web.extensions import service
from web.ui.ask import ApiError, act, ask
from web.ui.shell import blueprint, done, given, needs, page
from web.ui.shown import as_yaml

if TYPE_CHECKING:
    from flask import Response

    from etl.declare.source import AnySource

FIELDS = ("url", "type", "auth", "secret", "auth_name")
_ENDINGS = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".json": "api",
    ".xml": "rss",
    ".rss": "rss",
    ".atom": "rss",
}
_KINDS = ("api", "rss", "csv")
RECORDS = 20
SHOWN_TIMES = 5
# First where the records are, then how they are mapped.
ROUNDS = 2
# The longest that a page may take to read a source: seconds.
SECONDS = 20


@blueprint.get("/new-source")
@needs(Role.READ)
def new_source() -> Response:
    """Asks what it is."""
    return _page(1, given=given(FIELDS))


@blueprint.get("/sources/<name>/edit")
@needs(Role.ADMIN)
def edit_source(name: str) -> Response:
    """Shows its document, to be changed."""
    document = ask(f"/sources/{name}")["source"]
    return _page(3, name=name, document=as_yaml(document), **_times(document))


@blueprint.post("/new-source/preview")
@needs(Role.ADMIN)
def preview_source() -> Response:
    """Reads a little of it, and shows what would become of that."""
    form, name = request.form, request.form.get("name", "")
    try:
        if "document" in form:
            document = _read(form["document"])
            told = _preview(document)
        else:
            document, told = _find_out(given(FIELDS, form))
    except (ApiError, ConfigError) as error:
        return _page(
            2 if "document" in form else 1,
            name=name,
            document=form.get("document", ""),
            given=form,
            wrong=_wrong(error),
        )
    rows = _rows(document, told)
    return _page(2, name=name, document=as_yaml(document), p=told, rows=rows, **_times(document))


@blueprint.post("/new-source/save")
@needs(Role.ADMIN)
def save_source() -> Any:
    """Saves it, and runs it if it is new."""
    text, name = request.form.get("document", ""), request.form.get("name", "")
    try:
        document = _read(text)
        made = str(document.get("name", ""))
        headers = {"If-Match": "*"} if name else {}
        act("PUT", f"/sources/{name or made}", document, headers=headers)
        if name:
            return done(f"{name} is saved", "source", name=name)
        answer = act("POST", "/runs", {"source": made})
    except (ApiError, ConfigError) as error:
        return _page(3, name=name, document=text, wrong=_wrong(error))
    return done(f"{made} is saved; this is its first run", "run", run_id=answer["runs"][0]["run_id"])


def _page(step: int, **values: Any) -> Response:
    blank: dict[str, Any] = {"name": "", "document": "", "given": {}, "wrong": [], "p": None, "rows": [], "times": []}
    return page("new_source.html", section="sources", step=step, **{**blank, **values})


def _wrong(error: ApiError | ConfigError) -> list[str]:
    return error.lines if isinstance(error, ApiError) else [error.message]


def _read(text: str) -> dict[str, Any]:
    found = read_foreign_yaml(text, "the document")
    if not isinstance(found, dict):
        raise ConfigError("the document: expected the keys of one source")
    return found


def _preview(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = act(
        "POST", "/sources/preview", {"source": document, "records": RECORDS, "seconds": SECONDS}
    )
    return found


def _find_out(said: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first kind of source that finds records there, with what it suggests, and its preview."""
    address = said.get("url", "")
    path = urlsplit(address).path.lower()
    likely = next((kind for ending, kind in _ENDINGS.items() if path.endswith(ending)), _KINDS[0])
    kinds = (said["type"],) if said.get("type") else tuple(dict.fromkeys((likely, *_KINDS)))
    if "://" not in address:
        kinds = ("csv",)
    first = None
    for kind in kinds:
        document, told = _with_suggestions(_document(said, kind))
        if told["records"] and not told["error"]:
            return document, told
        first = first or (document, told)
    assert first is not None  # there is one kind at least
    return first


def _document(said: dict[str, str], kind: str) -> dict[str, Any]:
    address = said.get("url", "")
    if "://" not in address:
        return {"name": slug(address.rpartition("/")[2].partition(".")[0]) or "source", "type": "csv", "file": address}
    parts = urlsplit(address)
    last = [word for word in parts.path.split("/") if word][-1:]
    name = slug(" ".join([(parts.hostname or "").removeprefix("www."), *last])) or "source"
    asked: dict[str, Any] = {"url": address}
    value = f"${{{said.get('secret', '')}}}"
    match said.get("auth"):
        case "bearer":
            asked["auth"] = {"kind": "bearer", "token": value}
        case "header" | "query" as kind_of_auth:
            asked["auth"] = {"kind": kind_of_auth, "name": said.get("auth_name", ""), "value": value}
    return {"name": name, "type": kind, "request": asked}


def _with_suggestions(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A document with what its preview suggests, and what a preview of that suggests, and its preview."""
    told = _preview(document)
    for _ in range(ROUNDS):
        suggested = _suggested(document, told)
        if suggested == document:
            break
        document, told = suggested, _preview(suggested)
    return document, told


def _suggested(document: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """The document with what a preview suggests."""
    more: dict[str, Any] = {}
    if told.get("suggested_records"):
        more["records"] = told["suggested_records"]
    paging = (told.get("paging") or {}).get("suggested")
    if paging and "paginate" not in document:
        more["paginate"] = paging
    if document["type"] != "rss" and told.get("suggested_map"):
        more["map"] = told["suggested_map"]
    return {**document, **more}


def _rows(document: dict[str, Any], told: dict[str, Any]) -> list[dict[str, Any]]:
    """What each field of an item is made of, by the first record that has it."""
    items, records = told.get("items") or [], told.get("records") or []
    broken = {one["field"]: one["message"] for one in told.get("broken_rules") or []}
    rows = []
    paths = told.get("mapped_from") or document.get("map") or {}
    for field in dict.fromkeys((*paths, *(name for name, share in (told.get("filled") or {}).items() if share))):
        place, item = next(((n, one) for n, one in enumerate(items) if one and one.get(field) is not None), (0, {}))
        record = records[place] if place < len(records) and isinstance(records[place], dict) else {}
        path = paths.get(field)
        rows.append(
            {
                "field": field,
                "path": path,
                "sample": str(record.get(path, "")) if path else "",
                "value": "" if item.get(field) is None else str(item[field]),
                "broken": broken.get(field),
                "filled": f"{100 * float((told.get('filled') or {}).get(field, 0)):.0f} %",
                "suggested": False,
            }
        )
    return rows


def _times(document: dict[str, Any]) -> dict[str, Any]:
    """When it runs next, as far as its document can be read."""
    try:
        source: AnySource = parse(document)
    except ConfigError:
        return {}
    if source.schedule is None:
        every = service().settings.etl_interval
        first = datetime.now(UTC) + timedelta(seconds=0)
        times = [_grid(first, every.total_seconds()) + n * every for n in range(SHOWN_TIMES)]
        return {"times": times, "declared": {}}
    times, at = [], datetime.now(UTC)
    for _ in range(SHOWN_TIMES):
        at = next_slot(source.schedule, at)
        times.append(at)
    return {"times": times, "declared": document}


def _grid(now: datetime, step: float) -> datetime:
    return datetime.fromtimestamp((now.timestamp() // step + 1) * step, UTC)
