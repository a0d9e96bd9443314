"""Who may call what.

Each call needs a role: to read for all that only looks, or what the view says (`Resource.write`, `Resource.needs`).
While the web listens on loopback only, the Host header names loopback, and nothing says that the call was forwarded or
comes from another site, reading and starting runs need no key. All else does, as does everything once the web listens
on another address. A key that does not count is refused wherever it is given: its holder should know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import abort, current_app, g, request

from config.settings import LOOPBACK
from etl.access.keys import stored_form
from etl.access.roles import Role
from web.callers import NOBODY, caller, given_key, holder
from web.errors import RoleNeededError
from web.sessions import is_page, session_caller

if TYPE_CHECKING:
    from flask import Flask

    from config.settings import Settings

# They show no data, and must work before anyone has a key: probes and the documentation.
_FRONT = frozenset({"/", "/ui/sign-in"})
_ALWAYS_OPEN = (
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/docs",
    "/redoc",
    "/assets/",
    "/favicon.ico",
    "/ui/static/",
)
_OPEN_ON_LOOPBACK = frozenset({("POST", "/runs")})
# What proxies add.
_PASSED_ON = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "cf-connecting-ip", "true-client-ip"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
# Where a page that asks the API for what it shows says who looks at it; no header of a request can.
INSIDE = "kasparro.caller"
# The attribute of a view that names the role it needs.
NEEDS = "needs_role"


def install(app: Flask, settings: Settings) -> None:
    """Check every request before anything else looks at it."""
    hashes = stored_form(settings.api_keys)

    @app.before_request
    def _check_caller() -> None:
        g.caller = NOBODY
        if "\0" in request.path:
            # No name has it, and no column can hold it.
            abort(404)
        if (inside := request.environ.get(INSIDE)) is not None:
            g.caller = inside
            _check_inside()
            return
        if request.path in _FRONT or request.path.startswith(_ALWAYS_OPEN):
            return
        key = given_key()
        if key is None and (found := session_caller() if is_page(request.path) else None):
            g.caller = found
            _check_page()
            return
        if key is None:
            _check_nobody(settings)
            return
        found = holder(key, hashes)
        if found is None:
            abort(401)
        g.caller = found
        _check_role()


def needed_role() -> Role:
    """The role that this call needs."""
    view: Any = current_app.view_functions.get(request.endpoint or "")
    method = "get" if request.method in {"HEAD", "OPTIONS"} else request.method.lower()
    handler = getattr(getattr(view, "view_class", None), method, view)
    default = Role.READ if request.method in _READING else Role.ADMIN
    found: Role = getattr(handler, NEEDS, default)
    return found


def _check_role() -> None:
    needed, role = needed_role(), caller().role
    # Of a call that there is not, the answer is that there is none.
    if request.endpoint and not (role and role.covers(needed)):
        raise RoleNeededError(f"this call needs a key with the role {needed}, yours has {role}")


def check_own_form() -> None:
    """Refuse a form unless the browser says that a page of ours sent it; older ones say so by `Origin` alone."""
    is_told = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
    if not is_told or _is_from_another_site():
        abort(403, "this form was not sent by a page of this service")


def _check_page() -> None:
    """A browser sends the cookie along, whichever page has it call: a write must come from ours."""
    if request.method not in _READING:
        check_own_form()
    _check_role()


def _check_inside() -> None:
    """Who looks without a session may read, as over the API."""
    if caller().role is not None:
        _check_role()
    elif request.method not in _READING or needed_role() is not Role.READ:
        abort(401)


def _check_nobody(settings: Settings) -> None:
    if settings.public or not _from_here():
        abort(401)
    if request.method in _READING and needed_role() is Role.READ:
        return
    if (request.method, request.path) not in _OPEN_ON_LOOPBACK:
        abort(401)
    # A page of another site can have a browser post a form to us, but not JSON: for that the browser needs our leave.
    if request.mimetype != "application/json":
        abort(415, "the body must be JSON, with Content-Type: application/json")


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
    return (origin is not None and not _is_ours(origin)) or site not in {"none", "same-origin"}


def _is_ours(origin: str) -> bool:
    return origin.partition("://")[2] == request.host


def _from_loopback() -> bool:
    """True when the caller is on this machine, and called it by its own name.

    A page whose site's name was made to lead to 127.0.0.1 (DNS rebinding) runs on this machine too, but its browser
    sends the name of the site as Host.
    """
    try:
        host = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return False
    return host in LOOPBACK and (request.remote_addr or "").startswith(("127.", "::1", "::ffff:127."))
