"""The Flask application: settings in, extensions, blueprints and error handlers wired up."""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Flask
from flask.json.provider import JSONProvider
from flask_smorest import Api

from broker.host_states import RedisHostStates
from broker.messaging import make_producer
from db.session import Database
from web import auth, headers, metrics, pages, rate_limit, ui
from web.blueprints import (
    access,
    alerts,
    backfills,
    breakers,
    data,
    health,
    metrics as metrics_route,
    overview,
    quarantine,
    replays,
    runs,
    source_sets,
    sources,
    stats,
)
from web.errors import register_error_handlers
from web.exposure import check_exposure
from web.extensions import Service
from web.lane import Lane
from web.schemas.problem import PROBLEM, ProblemSchema

if TYPE_CHECKING:
    from config.settings import Settings

MAX_REQUEST_BODY = 1024 * 1024
# Threads of a process that questions which may be slow can hold: at work, and waiting for their turn.
SLOW_AT_WORK = 1
SLOW_WAITING = 3
# In the order of the documentation.
RESOURCES = (
    *(health, overview, data, stats, runs, sources, source_sets),
    *(quarantine, replays, backfills, breakers, alerts, access, metrics_route),
)
DESCRIPTION = """\
Data from REST APIs, CSV files and RSS/Atom feeds, normalised into one table.

Errors are RFC 9457 problem documents. Lists are paged by cursor; numbers are exact.
"""


class ExactJSON(JSONProvider):
    """JSON with exact numbers: decimals go out as they are stored."""

    _encode = msgspec.json.Encoder(decimal_format="number").encode

    def dumps(self, obj: Any, **_: Any) -> str:
        """Serialise; options are for other providers."""
        return self._encode(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """Parse strict JSON."""
        try:
            return msgspec.json.decode(s)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(str(error)) from error


class ProblemApi(Api):
    """Documents every error as a problem; the handlers are ours."""

    ERROR_SCHEMA = ProblemSchema

    def _register_responses(self) -> None:
        """Say of each status, and of those that nobody named, that it comes as a problem document."""
        content = {PROBLEM: {"schema": ProblemSchema}}
        for status in HTTPStatus:
            has_body = status >= HTTPStatus.BAD_REQUEST
            response = {"description": status.phrase, **({"content": content} if has_body else {})}
            self.spec.components.response(status.name, response, lazy=True)
        error = {"description": "Any other error.", "content": content}
        self.spec.components.response("DEFAULT_ERROR", error, lazy=True)

    def _register_error_handlers(self) -> None:
        register_error_handlers(self._app)


def create_app(settings: Settings, database: Database | None = None) -> Flask:
    """Build the application.

    Raises:
        SettingError: the web would be open to the network without keys.
    """
    check_exposure(settings)
    app = Flask("kasparro", static_folder=None)
    _configure(app, settings)
    app.extensions["kasparro"] = _service(settings, database or _database(settings))
    metrics.install(app, app.extensions["kasparro"].database)
    auth.install(app, settings)
    rate_limit.install(app, settings)
    headers.install(app)
    api = ProblemApi(app)
    for resource in RESOURCES:
        api.register_blueprint(resource.blueprint)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(ui.blueprint)
    return app


def _configure(app: Flask, settings: Settings) -> None:
    # What a form says on the page that follows it goes there in a cookie of the pages.
    app.secret_key = settings.session_secret
    app.config.update(SESSION_COOKIE_NAME="kasparro_told", SESSION_COOKIE_PATH="/ui", SESSION_COOKIE_SAMESITE="Lax")
    app.json_provider_class = ExactJSON
    app.json = ExactJSON(app)
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_REQUEST_BODY,
        API_TITLE="Kasparro ETL",
        API_VERSION="1.0",
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        API_SPEC_OPTIONS={
            "info": {"description": DESCRIPTION},
            "security": [{}, {"bearer": []}, {"apiKey": []}],
            "components": {
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                }
            },
        },
    )


def _service(settings: Settings, database: Database) -> Service:
    producer = make_producer()
    lane = Lane(SLOW_AT_WORK, SLOW_WAITING, settings.read_timeout)
    return Service(settings, database, producer, RedisHostStates(producer), lane)


def _database(settings: Settings) -> Database:
    return Database(
        settings.web_database_url,
        name=f"kasparro-web-{os.getpid()}",
        pool_size=8,
        patience=2.0,
        statement_limit=settings.read_timeout,
    )
