"""A new source in three steps: what it is, a preview of it, and its schedule."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import flash, request

from etl.access.roles import Role
from etl.declare.catalog import read_foreign_yaml
from etl.declare.listing import slug
from etl.declare.source import parse
from etl.errors import ConfigError
from etl.runs.schedule import next_slot
from web.extensions import service
from web.ui.ask import ApiError, act, ask
from web.ui.shell import blueprint, done, given, needs, page, refused
from web.ui.shown import as_yaml, length, schedule

if TYPE_CHECKING:
    from urllib.parse import SplitResult

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
# What is offered beside what a document may say.
OFTEN = ("5m", "15m", "30m", "1h", "6h", "1d")
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
    found = ask(f"/sources/{name}")
    shown = {"name": name, "version": found["version"], "document": as_yaml(_in_order(found["source"]))}
    return _page(2, **shown, **_times(found["source"]))


@blueprint.post("/new-source/preview")
@needs(Role.ADMIN)
def preview_source() -> Response:
    """Reads a little of it, and shows what would become of that."""
    form = request.form
    kept = {name: form.get(name, "") for name in ("name", "version")}
    try:
        if "document" in form:
            document = _scheduled(_read(form["document"]))
            told = _preview(document, SECONDS)
        else:
            document, told = _find_out(given(FIELDS, form))
    except (ApiError, ConfigError) as error:
        typed = form.get("document", "")
        return _page(2 if typed else 1, **kept, document=typed, given=form, wrong=_wrong(error))
    rows = _rows(document, told)
    return _page(2, **kept, document=as_yaml(document), p=told, rows=rows, **_times(document))


@blueprint.post("/new-source/save")
@needs(Role.ADMIN)
def save_source() -> Any:
    """Saves it, and runs it if it is new."""
    text, name, version = (request.form.get(key, "") for key in ("document", "name", "version"))
    try:
        document = _scheduled(_read(text))
        made = name or _name_of(document)
        act("PUT", f"/sources/{made}", document, headers={"If-Match": f'"{version}"'} if name else {})
    except (ApiError, ConfigError) as error:
        return _page(2, name=name, version=version, document=text, wrong=_wrong(error))
    if name:
        return done(f"{name} is saved", "source", name=name)
    try:
        answer = act("POST", "/runs", {"source": made})
    except ApiError as error:
        flash(f"{made} is saved, but does not run yet")
        return refused(error, "source", name=made)
    return done(f"{made} is saved; this is its first run", "run", run_id=answer["runs"][0]["run_id"])


def _name_of(document: dict[str, Any]) -> str:
    name = str(document.get("name", ""))
    if not re.fullmatch("[a-z0-9_]{1,100}", name):
        raise ConfigError("name: expected lower-case letters, digits and _, at most 100")
    return name


def _scheduled(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the schedule that was chosen beside it, if one was."""
    every = request.form.get("every", "")
    return {**document, "schedule": {"every": every}} if every in OFTEN else document


def _in_order(document: dict[str, Any]) -> dict[str, Any]:
    """The keys of a document as a person would write them: what it is first."""
    first = [key for key in ("name", "type", "request", "file", "records") if key in document]
    return {key: document[key] for key in dict.fromkeys((*first, *document))}


def _page(step: int, **values: Any) -> Response:
    blank: dict[str, Any] = {"name": "", "version": "", "document": "", "given": {}, "wrong": [], "p": None, "rows": []}
    return page("new_source.html", section="sources", step=step, often=OFTEN, **{**blank, "times": [], **values})


def _wrong(error: ApiError | ConfigError) -> list[str]:
    if isinstance(error, ConfigError):
        return [error.message]
    if error.status == HTTPStatus.PRECONDITION_REQUIRED:
        return ["there is a source of this name: change that one on its page, or take another name"]
    if error.status == HTTPStatus.PRECONDITION_FAILED:
        return ["somebody has changed it meanwhile: open it again, and do it there once more"]
    return error.lines


def _read(text: str) -> dict[str, Any]:
    found = read_foreign_yaml(text, "the document")
    if not isinstance(found, dict):
        raise ConfigError("the document: expected the keys of one source")
    return found


def _preview(document: dict[str, Any], seconds: float) -> dict[str, Any]:
    asked = {"source": document, "records": RECORDS, "seconds": max(1.0, seconds)}
    found: dict[str, Any] = act("POST", "/sources/preview", asked)
    return found


def _find_out(said: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first kind of source that finds records there, with what it suggests, and its preview; all in some time."""
    ends = time.monotonic() + SECONDS
    first = None
    for kind in _kinds(said):
        document, told = _with_suggestions(_document(said, kind), ends)
        if told["records"] and not told["error"]:
            return document, told
        first = first or (document, told)
        if time.monotonic() > ends:
            break
    assert first is not None  # there is one kind at least
    return first


def _kinds(said: dict[str, str]) -> tuple[str, ...]:
    address = said.get("url", "")
    if "://" not in address:
        return ("csv",)
    path = _parts(address).path.lower()
    likely = next((kind for ending, kind in _ENDINGS.items() if path.endswith(ending)), _KINDS[0])
    return (said["type"],) if said.get("type") in _KINDS else tuple(dict.fromkeys((likely, *_KINDS)))


def _parts(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError as error:
        raise ConfigError("that is no address; expected http:// or https://, or a file in data/") from error


def _document(said: dict[str, str], kind: str) -> dict[str, Any]:
    address = said.get("url", "")
    if "://" not in address:
        if not address.startswith("data/"):
            raise ConfigError(f"expected a file in data/, or an address; did you mean http://{address} ?")
        return {"name": slug(address.rpartition("/")[2].partition(".")[0]) or "source", "type": "csv", "file": address}
    parts = _parts(address)
    last = [word for word in parts.path.split("/") if word][-1:]
    name = slug(" ".join([(parts.hostname or "").removeprefix("www."), *last])) or "source"
    return {"name": name, "type": kind, "request": {"url": address, **_auth(said)}}


def _auth(said: dict[str, str]) -> dict[str, Any]:
    """How a key is sent: by the name of a secret, never by the key."""
    kind, secret = said.get("auth"), said.get("secret", "")
    if not kind:
        return {}
    if not re.fullmatch("[A-Z][A-Z0-9_]*", secret):
        raise ConfigError(
            "name of the secret: expected one such as SHOP_TOKEN, which stands in .env; not the key itself"
        )
    value = f"${{{secret}}}"
    if kind == "bearer":
        return {"auth": {"kind": kind, "token": value}}
    return {"auth": {"kind": kind, "name": said.get("auth_name", ""), "value": value}}


def _with_suggestions(document: dict[str, Any], ends: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """A document with what its preview suggests, and what a preview of that suggests, and its preview."""
    told = _preview(document, ends - time.monotonic())
    for _ in range(ROUNDS):
        suggested = _suggested(document, told)
        if suggested == document:
            break
        document, told = suggested, _preview(suggested, ends - time.monotonic())
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
    """What each field of an item is made of: by the value that breaks a rule, or the first record that has it."""
    broken = {one["field"]: one for one in told.get("broken_rules") or []}
    paths = told.get("mapped_from") or document.get("map") or {}
    filled = {name: float(share) for name, share in (told.get("filled") or {}).items() if share}
    return [
        _row(field, paths.get(field), broken.get(field), filled, told) for field in dict.fromkeys((*paths, *filled))
    ]


def _row(
    field: str, path: str | None, broken: dict[str, Any] | None, filled: dict[str, float], told: dict[str, Any]
) -> dict[str, Any]:
    row = {"field": field, "path": path, "filled": f"{100 * filled.get(field, 0):.0f} %", "broken": None, "value": ""}
    if broken:
        return {**row, "sample": broken.get("value") or "", "broken": broken["message"]}
    numbered = zip(told.get("records") or [], told.get("items") or [], strict=False)
    nothing: tuple[Any, dict[str, Any]] = ({}, {})
    record, item = next(((one, made) for one, made in numbered if made and made.get(field) is not None), nothing)
    value = "" if item.get(field) is None else str(item[field])
    return {**row, "sample": str(_at(record, path)) if path else "", "value": value}


def _at(record: Any, path: str) -> Any:
    """The value at a key, or at keys with dots between."""
    if isinstance(record, dict) and path in record:
        return record[path]
    for key in path.split("."):
        record = record.get(key) if isinstance(record, dict) else None
    return "" if record is None else record


def _times(document: dict[str, Any]) -> dict[str, Any]:
    """When it runs next, as far as its document can be read."""
    try:
        source: AnySource = parse(document)
    except ConfigError:
        return {}
    if source.schedule is None:
        every = service().settings.etl_interval
        times = [_grid(datetime.now(UTC), every.total_seconds()) + n * every for n in range(SHOWN_TIMES)]
        return {"times": times, "how_often": f"every {length(every.total_seconds())}"}
    times, at = [], datetime.now(UTC)
    for _ in range(SHOWN_TIMES):
        at = next_slot(source.schedule, at)
        times.append(at)
    return {"times": times, "how_often": schedule(document["schedule"])}


def _grid(now: datetime, step: float) -> datetime:
    return datetime.fromtimestamp((now.timestamp() // step + 1) * step, UTC)
