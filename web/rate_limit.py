"""How many calls a minute each key may make: counted in Redis by all processes, and by each alone while it is away."""

from __future__ import annotations

import time
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import request
from flask_limiter import Limiter

from broker.counters import counters
from web.auth import INSIDE
from web.callers import caller
from web.errors import problem

if TYPE_CHECKING:
    from flask import Flask, Response
    from flask_limiter import RequestLimit

    from config.settings import Settings

CODE = "too_many_calls"
_WINDOW = timedelta(minutes=1)


def install(app: Flask, settings: Settings) -> None:
    """Limit the calls of each key; those without one come from this machine, and are not counted.

    What a page asks for is counted with the page.
    """
    if not settings.rate_limit:
        return
    storage, options = counters(settings.redis_url)
    limit = f"{settings.rate_limit} per {_WINDOW.seconds} seconds"
    Limiter(
        lambda: caller().mark,
        app=app,
        application_limits=[limit],
        application_limits_exempt_when=lambda: caller().role is None or INSIDE in request.environ,
        strategy="sliding-window-counter",
        storage_uri=storage,
        storage_options=options,
        # Each process counts for itself, and looks again for Redis after a while that doubles.
        in_memory_fallback_enabled=True,
        swallow_errors=True,
        on_breach=_refuse,
        key_prefix="kasparro:calls",
    )


def _refuse(limit: RequestLimit) -> Response:
    wait = min(max(1, round(limit.reset_at - time.time())), _WINDOW.seconds)
    detail = f"this key made {limit.limit.amount} calls within a minute; try again in {wait} s"
    response = problem(HTTPStatus.TOO_MANY_REQUESTS, detail, code=CODE)
    response.headers["Retry-After"] = str(wait)
    return response
