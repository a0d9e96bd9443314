"""What goes with every answer: how it may be kept, shown and packed."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from flask import request

if TYPE_CHECKING:
    from flask import Flask, Response

# Nothing of an answer runs, and no other page shows it in a frame. Pages have a policy of their own.
POLICY = "default-src 'none'; frame-ancestors 'none'"
COMMON = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
# What is smaller would not become much smaller: bytes. Level 1 packs JSON to a fifth in a tenth of the time of 9.
LEAST = 1024
LEVEL = 1
_PACKED = ("application/json", "application/problem+json", "text/html", "text/javascript", "text/css")


def install(app: Flask) -> None:
    """Finish every answer."""

    @app.after_request
    def _finish(response: Response) -> Response:
        for name, value in COMMON.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        # Who asks decides what is answered, and another may ask through the same cache.
        response.headers.setdefault("Cache-Control", "private, no-cache")
        response.vary.update(("Authorization", "X-API-Key", "Accept-Encoding"))
        if request.path.startswith("/ui"):
            response.vary.add("Cookie")
        return _packed(response)


def _packed(response: Response) -> Response:
    """The answer as gzip where the client takes it."""
    if response.mimetype not in _PACKED or response.is_streamed or "Content-Encoding" in response.headers:
        return response
    if not request.accept_encodings["gzip"] or response.status_code == 206:
        return response
    response.direct_passthrough = False
    body = response.get_data()
    if len(body) >= LEAST:
        response.set_data(gzip.compress(body, LEVEL, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
    return response
