"""Sessions of the pages: a signed cookie that counts under `/ui` alone, of which the database keeps a hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request
from itsdangerous import BadSignature, TimestampSigner

from db.queries.sessions import find_session
from etl.access.keys import stored_form
from etl.access.sessions import SESSION_LASTS, Holder
from web.callers import Caller, mark_of_settings
from web.extensions import service

if TYPE_CHECKING:
    from flask import Response

COOKIE = "kasparro_session"
PATH = "/ui"


def is_page(path: str) -> bool:
    """Whether sessions count there."""
    return path == PATH or path.startswith(f"{PATH}/")


def session_caller() -> Caller | None:
    """Whose session this request belongs to; None without one that goes on.

    Raises:
        StorageError: the database, which knows them, is away.
    """
    token = given_token()
    if token is None:
        return None
    marks = {mark_of_settings(key) for key in stored_form(service().settings.api_keys)}
    found = service().database.read(find_session, token, marks)
    return Caller(found.name, found.mark, found.role) if found else None


def given_token() -> str | None:
    """The token of the cookie that came, if we signed it."""
    try:
        return _signer().unsign(request.cookies.get(COOKIE, ""), int(SESSION_LASTS.total_seconds())).decode()
    except (BadSignature, UnicodeError):
        return None


def keep(response: Response, token: str) -> None:
    """Have the browser keep a session."""
    signed = _signer().sign(token).decode()
    lasts = int(SESSION_LASTS.total_seconds())
    response.set_cookie(COOKIE, signed, lasts, path=PATH, secure=_is_secure(), httponly=True, samesite="Lax")


def drop(response: Response) -> None:
    """Have the browser forget it."""
    response.delete_cookie(COOKIE, path=PATH, secure=_is_secure(), httponly=True, samesite="Lax")


def holder_of(caller: Caller) -> Holder:
    """Who begins a session by a key."""
    assert caller.role is not None  # of one that has a key
    number = caller.mark.removeprefix("key:")
    return Holder(caller.name, caller.role, caller.mark, int(number) if number != caller.mark else None)


def _is_secure() -> bool:
    return request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"


def _signer() -> TimestampSigner:
    return TimestampSigner(service().settings.session_secret, salt=COOKIE)
