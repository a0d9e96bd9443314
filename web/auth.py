"""Who may call.

While the web listens on loopback only, the Host header names loopback, and nothing says that the call was forwarded or
comes from another site, reading and starting runs need no key. All else needs one, as does everything once the web
listens on another address. Keys are compared by their hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import abort, request

from config.settings import LOOPBACK
from web.keys import is_known, stored_form

if TYPE_CHECKING:
    from flask import Flask

    from config.settings import Settings

# They show no data, and must work before anyone has a key: probes and the documentation.
_FRONT = "/"
_ALWAYS_OPEN = ("/health/live", "/health/ready", "/openapi.json", "/docs", "/redoc", "/assets/", "/favicon.ico")
_OPEN_ON_LOOPBACK = frozenset({("POST", "/runs")})
# What proxies add.
_PASSED_ON = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "cf-connecting-ip", "true-client-ip"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def install(app: Flask, settings: Settings) -> None:
    """Check every request before anything else looks at it."""
    hashes = stored_form(settings.api_keys)

    @app.before_request
    def _check_caller() -> None:
        # A key is enough, wherever the caller is.
        if _has_key(hashes) or _is_open(settings):
            return
        # No key would have been needed, had the body been JSON: say so instead of asking for one.
        if not settings.public and _from_here() and (request.method, request.path) in _OPEN_ON_LOOPBACK:
            abort(415, "the body must be JSON, with Content-Type: application/json")
        abort(401)


def _is_open(settings: Settings) -> bool:
    if request.path == _FRONT or request.path.startswith(_ALWAYS_OPEN):
        return True
    if settings.public or not _from_here():
        return False
    if request.method in _READING:
        return True
    # A page of another site can have a browser post a form to us, but not JSON: for that the browser needs our leave.
    return (request.method, request.path) in _OPEN_ON_LOOPBACK and request.mimetype == "application/json"


def _from_here() -> bool:
    """True when nothing speaks against a caller on this machine."""
    return _from_loopback() and not _is_forwarded() and not _is_from_another_site()


def _is_forwarded() -> bool:
    """A proxy on this machine calls from loopback too, for whoever called it."""
    names = {name.lower() for name, _ in request.headers}
    return not names.isdisjoint(_PASSED_ON) or any(name.startswith("x-forwarded") for name in names)


def _is_from_another_site() -> bool:
    """What a browser says of the page that called: any page may have a browser call this machine."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    return (origin is not None and urlsplit(origin).netloc != request.host) or site not in {"none", "same-origin"}


def _from_loopback() -> bool:
    """True when the caller is on this machine, and called it by its own name.

    A page whose site's name was made to lead to 127.0.0.1 (DNS rebinding) runs on this machine too, but its browser
    sends the name of the site as Host.
    """
    host = urlsplit(f"//{request.host}").hostname or ""
    return host in LOOPBACK and (request.remote_addr or "").startswith(("127.", "::1", "::ffff:127."))


def _has_key(hashes: tuple[str, ...]) -> bool:
    given = request.headers.get("X-API-Key", "")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if not given and scheme.lower() == "bearer":
        given = token.strip()
    return bool(given) and is_known(given, hashes)
