"""The interactive documentation. Its scripts come from an installed package, so no page needs the internet."""

from __future__ import annotations

from importlib.resources import as_file, files

from flask import Blueprint, Response, abort, redirect, send_file

blueprint = Blueprint("pages", __name__)

ASSETS = {
    "swagger-ui.css": ("swagger_ui", "text/css"),
    "swagger-ui-bundle.js": ("swagger_ui", "text/javascript"),
    "redoc.standalone.js": ("redoc", "text/javascript"),
}
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

SWAGGER = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Kasparro ETL: API</title>
<link rel="stylesheet" href="/assets/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="/assets/swagger-ui-bundle.js"></script><script src="/assets/start-swagger.js"></script></body></html>
"""
START_SWAGGER = "SwaggerUIBundle({url: '/openapi.json', dom_id: '#swagger-ui', validatorUrl: null});\n"
REDOC = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Kasparro ETL: API reference</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>body { margin: 0 }</style></head>
<body><redoc spec-url="/openapi.json"></redoc><script src="/assets/redoc.standalone.js"></script></body></html>
"""


@blueprint.get("/")
def front() -> Response:
    """Leads to the pages."""
    return redirect("/ui")  # type: ignore[return-value]


@blueprint.get("/docs")
def swagger() -> Response:
    """Swagger UI."""
    return _page(SWAGGER)


@blueprint.get("/redoc")
def redoc() -> Response:
    """ReDoc."""
    return _page(REDOC)


@blueprint.get("/assets/start-swagger.js")
def start_swagger() -> Response:
    """Starts Swagger UI; a file of its own, so that inline scripts can stay forbidden."""
    return Response(START_SWAGGER, content_type="text/javascript; charset=utf-8")


@blueprint.get("/assets/<name>")
def asset(name: str) -> Response:
    """A script or style sheet."""
    if name not in ASSETS:
        abort(404)
    folder, kind = ASSETS[name]
    with as_file(files("openapi_ui_bundles") / folder / "vendor" / name) as path:
        return send_file(path, mimetype=kind, max_age=86400)


def _page(text: str) -> Response:
    response = Response(text, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    return response
