"""Signing in: by a link that counts once, or by a key; and signing out."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import redirect, request, url_for

from db.queries.audit import record_write
from db.queries.sessions import begin_session, end_session, redeem_link
from etl.access.keys import stored_form
from etl.access.roles import Role
from web import sessions
from web.auth import check_own_form
from web.callers import caller, holder
from web.extensions import service
from web.ui.shell import blueprint, needs, page

if TYPE_CHECKING:
    from flask import Response
    from sqlalchemy import Connection

    from etl.access.sessions import Holder

USED_UP = "This link was used, or is older than 10 minutes. `make login` prints another."
NO_KEY = "This key does not count."


@blueprint.get("/sign-in")
def sign_in() -> Response:
    """Asks for a key, or to go on by the link that was opened: who only looks ahead at a link does not use it up."""
    return page("sign_in.html", link=request.args.get("link", ""), wanted=_wanted(request.args))


@blueprint.post("/sign-in")
def begin() -> Any:
    """Begins a session."""
    check_own_form()
    link, key = request.form.get("link", ""), request.form.get("key", "").strip()
    begun = service().database.transact(_by_link, link) if link else _by_key(key)
    if begun is None:
        said = {"wanted": _wanted(request.form), "refusal": USED_UP if link else NO_KEY}
        return page("sign_in.html", HTTPStatus.FORBIDDEN, link="", **said)
    response = redirect(_wanted(request.form), HTTPStatus.SEE_OTHER)
    sessions.keep(response, begun)  # type: ignore[arg-type]
    return response


@blueprint.post("/sign-out")
@needs(Role.READ)
def sign_out() -> Any:
    """Ends the session, here and everywhere."""
    token = sessions.given_token()
    if token is not None:
        service().database.transact(_end, token, caller().name)
    response = redirect(url_for("ui.account"), HTTPStatus.SEE_OTHER)
    sessions.drop(response)  # type: ignore[arg-type]
    return response


@blueprint.get("/account")
def account() -> Response:
    """Who is signed in."""
    return page("account.html")


def _by_link(connection: Connection, link: str) -> str | None:
    begun = redeem_link(connection, link)
    if begun is None:
        return None
    _record(connection, begun[0])
    return begun[1]


def _by_key(key: str) -> str | None:
    found = holder(key, stored_form(service().settings.api_keys)) if key else None
    return service().database.transact(_begin, sessions.holder_of(found)) if found else None


def _begin(connection: Connection, who: Holder) -> str:
    _record(connection, who)
    return begin_session(connection, who)


def _end(connection: Connection, token: str, name: str) -> None:
    end_session(connection, token)
    record_write(connection, name, "sign_out", None, {})


def _record(connection: Connection, who: Holder) -> None:
    record_write(connection, who.name, "sign_in", None, {"role": who.role})


def _wanted(given: Any) -> str:
    """The page to go to then: one of ours."""
    wanted: str = given.get("next", "")
    is_ours = wanted.startswith(("/ui/", "/ui?")) and "\\" not in wanted
    return wanted if is_ours else url_for("ui.overview")
