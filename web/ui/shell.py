"""What all pages share: their frame, their files, and how an error looks."""

from __future__ import annotations

import hashlib
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from flask import Blueprint, Response, abort, redirect, render_template, request, send_from_directory, url_for

from etl.errors import ETLError
from web.auth import NEEDS
from web.callers import caller
from web.errors import answer_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from werkzeug.exceptions import HTTPException

    from etl.access.roles import Role

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

blueprint = Blueprint("ui", __name__, url_prefix="/ui", template_folder="templates")


def needs(role: Role) -> Callable[[View], View]:
    """A page or form that needs a role: without, all that only looks needs to read, and a form needs an admin."""

    def decorate(view: View) -> View:
        setattr(view, NEEDS, role)
        return view

    return decorate


def page(template: str, status: int = HTTPStatus.OK, **values: Any) -> Response:
    """A page of its own."""
    response = Response(render_template(template, **values), status, content_type="text/html; charset=utf-8")
    response.headers.update(HEADERS)
    return response


@blueprint.app_context_processor
def _shared() -> dict[str, Any]:
    return {"caller": caller, "asset": asset_address}


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


@blueprint.errorhandler(HTTPStatus.UNAUTHORIZED)
def _sign_in(_: HTTPException) -> Any:
    wanted = request.full_path.rstrip("?") if request.method == "GET" else ""
    return redirect(f"{url_for('ui.sign_in')}?{urlencode({'next': wanted})}", HTTPStatus.SEE_OTHER)


@blueprint.errorhandler(HTTPStatus.NOT_FOUND)
@blueprint.errorhandler(HTTPStatus.FORBIDDEN)
def _http_error(error: HTTPException) -> Response:
    status = HTTPStatus(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
    return page("problem.html", status, title=status.phrase, detail=error.description)


@blueprint.errorhandler(ETLError)
def _error(error: ETLError) -> Response:
    answer = answer_of(error)
    told = answer.get_json(force=True)
    shown = page("problem.html", answer.status_code, title=told["title"], detail=told["detail"])
    if "Retry-After" in answer.headers:
        shown.headers["Retry-After"] = answer.headers["Retry-After"]
    return shown


@blueprint.get("")
def front() -> Any:
    """Leads to the first page."""
    return redirect(url_for("ui.account"))


@blueprint.route("/<path:name>")
def nowhere(name: str) -> Response:
    """What there is not."""
    abort(HTTPStatus.NOT_FOUND, f"there is no page {name}")
