"""What all pages share: their frame, their files, forms, and how an error looks."""

from __future__ import annotations

import hashlib
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

from flask import (
    Blueprint,
    Response,
    abort,
    flash,
    redirect,
    render_template,
    request,
    send_from_directory,
    url_for,
)
from werkzeug.exceptions import HTTPException

from etl.access.roles import Role
from etl.errors import ETLError
from web.auth import NEEDS
from web.callers import caller
from web.errors import answer_of, from_defect
from web.extensions import service
from web.ui.ask import ApiError
from web.ui.shown import FILTERS, STATES, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

View = TypeVar("View", bound="Callable[..., Any]")
STATIC = Path(__file__).parents[1] / "static"
HEADERS = {
    # Styles bring small pictures along as data.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'",
    # Under `no-referrer` a browser does not say where a form comes from.
    "Referrer-Policy": "same-origin",
}
FOR_EVER = "public, max-age=31536000, immutable"
# The pages in their order, and the letters after `g` that lead there.
PAGES = (
    ("overview", "Overview", "o"),
    ("sources", "Sources", "s"),
    ("runs", "Runs", "r"),
    ("data", "Data", "d"),
    ("rejects", "Rejects", "j"),
    ("replays", "Replays", "p"),
    ("hosts", "Hosts", "h"),
    ("alerts", "Alerts", "a"),
    ("system", "System", "y"),
    ("access", "Access", "k"),
)
THEMES = ("auto", "light", "dark")
THEME_COOKIE = "kasparro_theme"

blueprint = Blueprint("ui", __name__, url_prefix="/ui", template_folder="templates")


def needs(role: Role) -> Callable[[View], View]:
    """A page or form that needs a role: without, all that only looks needs to read, and a form needs an admin."""

    def decorate(view: View) -> View:
        setattr(view, NEEDS, role)
        return view

    return decorate


def page(template: str, status: int = HTTPStatus.OK, **values: Any) -> Response:
    """A page; one that is as it was when it was asked for last is not sent again."""
    response = Response(render_template(template, **values), status, content_type="text/html; charset=utf-8")
    response.headers.update(HEADERS)
    if status == HTTPStatus.OK and request.method == "GET":
        response.add_etag()
        response.make_conditional(request)
    return response


def done(said: str, endpoint: str, **values: Any) -> Any:
    """After a form: the page that follows, which says what was done."""
    flash(said)
    return redirect(url_for(f"ui.{endpoint}", **values), HTTPStatus.SEE_OTHER)


def refused(error: ApiError, endpoint: str | None = None, **values: Any) -> Any:
    """After a form that the API refused: the page that it was on, or another, which says why."""
    if error.status == HTTPStatus.UNAUTHORIZED:
        abort(HTTPStatus.UNAUTHORIZED)
    for line in error.lines:
        flash(line, "refused")
    return redirect(url_for(f"ui.{endpoint}", **values) if endpoint else back(), HTTPStatus.SEE_OTHER)


def given(names: tuple[str, ...], args: Mapping[str, str] | None = None) -> dict[str, str]:
    """Those of these parameters that have a value."""
    values = request.args if args is None else args
    return {name: values[name].strip() for name in names if values.get(name, "").strip()}


def may(role: str) -> bool:
    """Whether whoever looks may do what needs a role; the API decides anew."""
    mine = caller().role
    return mine is not None and mine.covers(Role(role))


@blueprint.app_context_processor
def _shared() -> dict[str, Any]:
    theme = request.cookies.get(THEME_COOKIE, THEMES[0])
    return {
        "who": caller,
        "may": may,
        "asset": asset_address,
        "pages": PAGES,
        "states": STATES,
        "theme": theme if theme in THEMES else THEMES[0],
        "with_args": with_args,
        "took": took,
        "is_scheduling": service().settings.enable_scheduler,
    }


@blueprint.record_once
def _set_up(state: Any) -> None:
    state.app.jinja_env.filters.update(FILTERS)
    state.app.jinja_env.trim_blocks = state.app.jinja_env.lstrip_blocks = True


def took(run: dict[str, Any]) -> float | None:
    """How long a run went on: seconds."""
    began, ended = moment(run["started_at"]), moment(run["completed_at"])
    return (ended - began).total_seconds() if began and ended else None


def with_args(**changed: Any) -> str:
    """The address of this page with some of its parameters changed; None takes one away."""
    args: dict[str, Any] = {**request.args.to_dict(flat=False), **changed}
    kept = {name: value for name, value in args.items() if value is not None and value not in ("", [""])}
    return f"{request.path}?{urlencode(kept, doseq=True)}" if kept else request.path


@blueprint.get("/static/<path:name>")
def asset(name: str) -> Response:
    """A style sheet, script or picture of ours."""
    response = send_from_directory(STATIC, name)
    if request.args.get("v") == _mark(name):
        response.headers["Cache-Control"] = FOR_EVER
    return response


def asset_address(name: str) -> str:
    """Where a file of ours is, by its content: it may be kept for ever."""
    return url_for("ui.asset", name=name, v=_mark(name))


@cache
def _mark(name: str) -> str:
    path = STATIC / name
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else ""


@blueprint.get("/theme")
def theme() -> Any:
    """Light, dark, or as the system has it: kept by the browser."""
    chosen = request.args.get("to", "")
    response = redirect(back(), HTTPStatus.SEE_OTHER)
    if chosen in THEMES:
        response.set_cookie(THEME_COOKIE, chosen, 365 * 86_400, path="/ui", samesite="Lax")
    return response


def back() -> str:
    """The page that a form was on."""
    came = urlsplit(request.referrer or "")
    is_ours = came.netloc == request.host and came.path.startswith("/ui")
    return f"{came.path}?{came.query}" if is_ours and came.query else came.path if is_ours else url_for("ui.overview")


@blueprint.errorhandler(HTTPStatus.UNAUTHORIZED)
def _sign_in(_: HTTPException | None) -> Any:
    wanted = request.full_path.rstrip("?") if request.method == "GET" else back()
    return redirect(f"{url_for('ui.sign_in')}?{urlencode({'next': wanted})}", HTTPStatus.SEE_OTHER)


@blueprint.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> Any:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    if status < HTTPStatus.BAD_REQUEST:
        return error
    return page("problem.html", status, title=status.phrase, detail=error.description)


@blueprint.errorhandler(Exception)
def _defect(error: Exception) -> Response:
    told = from_defect(error).get_json(force=True)
    return page("problem.html", HTTPStatus.INTERNAL_SERVER_ERROR, title=told["title"], detail=told["detail"])


@blueprint.errorhandler(ApiError)
def _api_error(error: ApiError) -> Any:
    if error.status == HTTPStatus.UNAUTHORIZED:
        return _sign_in(None)
    title = error.told.get("title") or HTTPStatus(error.status).phrase
    return page("problem.html", error.status, title=title, detail="; ".join(error.lines))


@blueprint.errorhandler(ETLError)
def _error(error: ETLError) -> Response:
    answer = answer_of(error)
    told = answer.get_json(force=True)
    shown = page("problem.html", answer.status_code, title=told["title"], detail=told["detail"])
    if "Retry-After" in answer.headers:
        shown.headers["Retry-After"] = answer.headers["Retry-After"]
    return shown


@blueprint.get("")
@blueprint.get("/")
def front() -> Any:
    """Leads to the first page."""
    return redirect(url_for("ui.overview"))


@blueprint.route("/<path:name>")
def nowhere(name: str) -> Any:
    """What there is not, but for a slash too many."""
    if not name.endswith("/"):
        abort(HTTPStatus.NOT_FOUND, f"there is no page {name}")
    return redirect(f"/ui/{name.strip('/')}")
