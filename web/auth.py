"""Who may call.

While the web listens on loopback only, and the Host header names loopback, reading and starting runs need no key. All
else needs one, as does everything once the web listens on another address. Keys are compared by their hash.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import abort, request

from settings import LOOPBACK, SettingError, Settings, is_placeholder

if TYPE_CHECKING:
    from flask import Flask

HASH_MARK = "sha256:"
# These show no data: probes must work before anyone has a key, and so must the documentation.
_FRONT = "/"
_ALWAYS_OPEN = ("/health/live", "/health/ready", "/openapi.json", "/docs", "/redoc", "/assets/", "/favicon.ico")
_OPEN_ON_LOOPBACK = frozenset({("POST", "/runs")})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def check_exposure(settings: Settings) -> None:
    """Refuse to be reachable from other machines without keys, or with one that was never changed."""
    if settings.public and not settings.api_keys:
        raise SettingError(f"API_KEYS: WEB_HOST is {settings.web_host}, not loopback, so at least one key is needed")
    if any(is_placeholder(key) for key in settings.api_keys):
        raise SettingError("API_KEYS: one of the keys is a placeholder")


def hash_key(key: str) -> str:
    """The form in which a key may be stored."""
    return HASH_MARK + hashlib.sha256(key.encode()).hexdigest()


def install(app: Flask, settings: Settings) -> None:
    """Check every request before anything else looks at it."""
    hashes = tuple(key if key.startswith(HASH_MARK) else hash_key(key) for key in settings.api_keys)

    @app.before_request
    def _check_caller() -> None:
        # Who has a key needs no look at where they come from.
        if _has_key(hashes) or _is_open(settings):
            return
        if not settings.public and _from_loopback() and (request.method, request.path) in _OPEN_ON_LOOPBACK:
            abort(415, "the body must be JSON, with Content-Type: application/json")
        abort(401)


def _is_open(settings: Settings) -> bool:
    if request.path == _FRONT or request.path.startswith(_ALWAYS_OPEN):
        return True
    if settings.public or not _from_loopback():
        return False
    if request.method in _READING:
        return True
    # A page of another site can post forms, but not JSON, without asking first.
    return (request.method, request.path) in _OPEN_ON_LOOPBACK and request.mimetype == "application/json"


def _from_loopback() -> bool:
    """True when the caller is on this machine and means to be: a rebound name shows in the Host header."""
    host = urlsplit(f"//{request.host}").hostname or ""
    return host in LOOPBACK and (request.remote_addr or "").startswith(("127.", "::1", "::ffff:127."))


def _has_key(hashes: tuple[str, ...]) -> bool:
    given = request.headers.get("X-API-Key", "")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not given and scheme.lower() == "bearer":
        given = token.strip()
    if not given:
        return False
    hashed = hash_key(given)
    return any([hmac.compare_digest(hashed, known) for known in hashes])  # noqa: C419 -- always compare all
