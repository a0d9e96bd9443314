"""What the API answers to whoever looks: a page shows what an endpoint says, and a form is a call of one."""

from __future__ import annotations

import json
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flask import current_app
from werkzeug.test import EnvironBuilder

from web.auth import INSIDE
from web.callers import caller

if TYPE_CHECKING:
    from collections.abc import Mapping


class ApiError(Exception):
    """The API refused. `told` is its problem document."""

    def __init__(self, status: int, told: dict[str, Any]) -> None:
        super().__init__(told.get("detail") or told.get("title") or "")
        self.status = status
        self.told = told

    @property
    def lines(self) -> list[str]:
        """What was wrong, a line for each field."""
        errors = self.told.get("errors") or []
        named = [f"{error['field']}: {error['message']}" if error["field"] else error["message"] for error in errors]
        return named or [str(self)]


def ask(path: str, query: Mapping[str, Any] | None = None) -> Any:
    """What `GET` of a path answers; numbers are exact.

    Raises:
        ApiError: it refused.
    """
    return _call("GET", path, query, None, {})


def act(
    method: str,
    path: str,
    body: Any = None,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """What a call that writes answers.

    Raises:
        ApiError: it refused; nothing was written.
    """
    return _call(method, path, query, {} if body is None and method != "DELETE" else body, headers or {})


def address(path: str, query: Mapping[str, Any] | None = None) -> str:
    """The address of what a page shows, in the API."""
    given = {name: value for name, value in (query or {}).items() if value not in {None, ""}}
    return f"{path}?{urlencode(given)}" if given else path


def _call(method: str, path: str, query: Mapping[str, Any] | None, body: Any, headers: Mapping[str, str]) -> Any:
    builder = EnvironBuilder(path=path, method=method, json=body, headers=list(headers.items()))
    builder.query_string = address("", query).lstrip("?")
    environ = builder.get_environ()
    environ[INSIDE] = caller()
    builder.close()
    # A context of its own: what this request keeps in `g` stays as it is.
    with current_app.app_context(), current_app.request_context(environ):
        response = current_app.full_dispatch_request()
        text = response.get_data()
    is_json = "json" in (response.mimetype or "")
    found = json.loads(text, parse_float=Decimal) if text and is_json else text.decode()
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        raise ApiError(response.status_code, found if isinstance(found, dict) else {"detail": found})
    return found
