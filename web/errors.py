"""Every error as a problem document (RFC 9457): the one table from our errors to HTTP statuses."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from etl.errors import (
    AlreadyActiveError,
    BrokerUnavailableError,
    ConfigError,
    ETLError,
    KeyReplacedError,
    KeyReusedError,
    MirrorResetError,
    NoBackfillError,
    NoDestinationError,
    NoSnapshotError,
    NothingToReplayError,
    NotInstalledError,
    OlderReleaseError,
    OldProtocolError,
    PageTooLargeError,
    RunFinishedError,
    SourceInactiveError,
    SourceOwnedError,
    SourceRemovalError,
    StaleVersionError,
    StorageConflictError,
    StorageUnavailableError,
    TooBroadError,
    TooManyExportsError,
    TooManyPreviewsError,
    TooManyStreamsError,
    TooSlowError,
    UnknownAlertError,
    UnknownCaseError,
    UnknownErrorGroupError,
    UnknownExportError,
    UnknownHostError,
    UnknownItemError,
    UnknownKeyError,
    UnknownPlanError,
    UnknownRunError,
    UnknownSessionError,
    UnknownSourceError,
    VersionNeededError,
)
from web.schemas.problem import PROBLEM

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger(__name__)


class InvalidRequestError(ETLError):
    """A parameter that the schemas cannot judge alone."""

    code = "invalid_request"

    def __init__(self, location: str, field: str, message: str) -> None:
        super().__init__(message, errors=[{"location": location, "field": field, "message": message}])


class RoleNeededError(ETLError):
    """The key that was given may not do this."""

    code = "role_needed"


# An error that is not here has the status of its nearest base that is, or is a defect.
STATUSES: dict[type, HTTPStatus] = {
    InvalidRequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    RoleNeededError: HTTPStatus.FORBIDDEN,
    UnknownSourceError: HTTPStatus.NOT_FOUND,
    UnknownRunError: HTTPStatus.NOT_FOUND,
    UnknownHostError: HTTPStatus.NOT_FOUND,
    UnknownErrorGroupError: HTTPStatus.NOT_FOUND,
    UnknownItemError: HTTPStatus.NOT_FOUND,
    UnknownPlanError: HTTPStatus.NOT_FOUND,
    UnknownCaseError: HTTPStatus.NOT_FOUND,
    UnknownKeyError: HTTPStatus.NOT_FOUND,
    UnknownSessionError: HTTPStatus.NOT_FOUND,
    UnknownAlertError: HTTPStatus.NOT_FOUND,
    NoDestinationError: HTTPStatus.CONFLICT,
    KeyReplacedError: HTTPStatus.CONFLICT,
    MirrorResetError: HTTPStatus.GONE,
    KeyReusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NoBackfillError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotInstalledError: HTTPStatus.NOT_IMPLEMENTED,
    OldProtocolError: HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
    NoSnapshotError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NothingToReplayError: HTTPStatus.UNPROCESSABLE_ENTITY,
    OlderReleaseError: HTTPStatus.CONFLICT,
    SourceInactiveError: HTTPStatus.CONFLICT,
    SourceOwnedError: HTTPStatus.CONFLICT,
    SourceRemovalError: HTTPStatus.CONFLICT,
    VersionNeededError: HTTPStatus.PRECONDITION_REQUIRED,
    StaleVersionError: HTTPStatus.PRECONDITION_FAILED,
    AlreadyActiveError: HTTPStatus.CONFLICT,
    RunFinishedError: HTTPStatus.CONFLICT,
    ConfigError: HTTPStatus.UNPROCESSABLE_ENTITY,
    BrokerUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageConflictError: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    TooManyExportsError: HTTPStatus.TOO_MANY_REQUESTS,
    UnknownExportError: HTTPStatus.NOT_FOUND,
    TooManyPreviewsError: HTTPStatus.TOO_MANY_REQUESTS,
    TooManyStreamsError: HTTPStatus.TOO_MANY_REQUESTS,
    TooSlowError: HTTPStatus.SERVICE_UNAVAILABLE,
    PageTooLargeError: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooBroadError: HTTPStatus.UNPROCESSABLE_ENTITY,
}
# Facts of an error that a caller can use.
_SHOWN_FACTS = ("active_run_id", "source", "not_before", "errors")
_RETRY_SECONDS = "5"
_KEY_NEEDED = "this call needs an API key: Authorization: Bearer <key>, or X-API-Key: <key>"


def register_error_handlers(app: Flask) -> None:
    """Turn every exception into a problem document."""
    app.register_error_handler(ETLError, answer_of)
    app.register_error_handler(HTTPException, _from_http)
    app.register_error_handler(Exception, from_defect)


def problem(status: int, detail: str, *, code: str = "", **more: Any) -> Response:
    """A problem document; `code` becomes its type."""
    body = problem_body(status, detail, code=code, **more)
    response = Response(body, status=int(status), content_type=PROBLEM)
    if status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        response.headers["Retry-After"] = _RETRY_SECONDS
    return response


def problem_body(status: int, detail: str, *, code: str = "", **more: Any) -> bytes:
    """The JSON of a problem document."""
    body = {
        "type": f"urn:kasparro:problem:{code}" if code else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        **more,
    }
    return msgspec.json.encode(body)


def status_of(error: ETLError) -> HTTPStatus | None:
    """The status of an error that a caller may see, None for one that nobody foresaw."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)


def answer_of(error: ETLError) -> Response:
    """An error of ours as a problem document."""
    status = status_of(error)
    if status is None:
        return from_defect(error)
    facts = {name: error.facts[name] for name in _SHOWN_FACTS if name in error.facts}
    return problem(status, error.message, code=error.code, **facts)


def _from_http(error: HTTPException) -> Response:
    status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    if status < HTTPStatus.BAD_REQUEST and error.response is None:
        return Response(error.get_response().get_data(), status, error.get_headers())
    if isinstance(error.response, Response):
        return error.response
    data = getattr(error, "data", None) or {}
    if "messages" in data:
        found = list(_validation_errors(data["messages"]))
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, _summary(found), code=InvalidRequestError.code, errors=found)
    if status == HTTPStatus.UNAUTHORIZED:
        response = problem(status, _KEY_NEEDED, code="key_needed")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    response = problem(status, error.description or HTTPStatus(status).phrase)
    if status == HTTPStatus.METHOD_NOT_ALLOWED and hasattr(error, "valid_methods"):
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    return response


def from_defect(error: Exception) -> Response:
    """An error nobody foresaw: the log has it under an id, the caller gets the id only."""
    incident = str(uuid.uuid4())
    log.error("unhandled_error", incident=incident, path=request.path, method=request.method, exc_info=error)
    detail = f"an unexpected error; the log has it under {incident}"
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail, code="internal_error", incident=incident)


def _validation_errors(messages: dict[str, Any]) -> Iterator[dict[str, str]]:
    for location, fields in messages.items():
        for field, message in _flatten(fields, ""):
            yield {"location": "body" if location == "json" else location, "field": field, "message": message}


def _flatten(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, child in value.items():
            name = "" if key == "_schema" else str(key)
            yield from _flatten(child, f"{path}.{name}" if path and name else path or name)
    elif isinstance(value, list):
        for child in value:
            yield from _flatten(child, path)
    else:
        yield path, str(value)


def _summary(found: list[dict[str, str]]) -> str:
    return "; ".join(f"{e['field'] or e['location']}: {e['message']}" for e in found[:5]) or "the request is not valid"
