"""The service itself: the hosts it asks, its parts, alerts, keys, and who did what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flask import request

from etl.access.roles import Role
from web.extensions import service
from web.ui.ask import ApiError, act, address, ask
from web.ui.shell import blueprint, done, given, needs, page, refused

if TYPE_CHECKING:
    from flask import Response


@blueprint.get("/hosts")
def hosts() -> Response:
    """Hosts: how they answer, and which are left alone."""
    return page("hosts.html", section="hosts", twin="/hosts", hosts=ask("/hosts")["hosts"][:200])


@blueprint.post("/hosts/reset")
@needs(Role.OPERATE)
def reset_host() -> Any:
    """Has a host asked again at once."""
    host = request.form.get("host", "")
    try:
        act("POST", f"/breakers/{host}/reset")
    except ApiError as error:
        return refused(error, "hosts")
    return done(f"{host} is asked again", "hosts")


@blueprint.get("/system")
def system() -> Response:
    """What the service consists of."""
    host = request.host.rpartition(":")[0] or request.host
    flower = f"http://{host}:{service().settings.flower_port}"
    return page("system.html", section="system", twin="/system", y=ask("/system"), flower=flower)


@blueprint.get("/alerts")
@needs(Role.OPERATE)
def alerts() -> Response:
    """What stands, and what was told."""
    query = {**given(("cursor",)), "limit": 30}
    return page("alerts.html", section="alerts", twin=address("/alerts", query), a=ask("/alerts", query))


@blueprint.post("/alerts/test")
@needs(Role.ADMIN)
def alert_test() -> Any:
    """Sends a test."""
    try:
        act("POST", "/alerts/test")
    except ApiError as error:
        return refused(error, "alerts")
    return done("a test is on its way", "alerts")


@blueprint.post("/alerts/mute")
@needs(Role.OPERATE)
def mute() -> Any:
    """Mutes for some hours; without a number it ends that."""
    hours = request.form.get("hours", "")
    until = datetime.now(UTC) + timedelta(hours=int(hours)) if hours.isdecimal() and len(hours) < 5 else None
    scope: dict[str, Any] = {"all": True} if "all" in request.form else given(("cause", "source", "tag"), request.form)
    try:
        act("POST", "/alerts/mute", {**scope, "until": until and until.isoformat()})
    except ApiError as error:
        return refused(error, "alerts")
    return done("it is muted" if until else "it is told of again", "alerts")


@blueprint.get("/access")
@needs(Role.ADMIN)
def access() -> Response:
    """Keys, and who did what."""
    return _access()


def _access(new_key: dict[str, Any] | None = None) -> Response:
    query = {**given(("actor", "action", "target", "cursor")), "limit": 30}
    audit = ask("/audit", query)
    return page(
        "access.html",
        section="access",
        twin=address("/audit", query),
        keys=ask("/keys")["keys"],
        audit=audit,
        new_key=new_key,
    )


@blueprint.post("/access/keys")
@needs(Role.ADMIN)
def make_key() -> Any:
    """Makes a key, and shows it this once."""
    try:
        made = act("POST", "/keys", given(("name", "role"), request.form))
    except ApiError as error:
        return refused(error, "access")
    return _access(made)


@blueprint.post("/access/keys/<int:key_id>/revoke")
@needs(Role.ADMIN)
def revoke_key(key_id: int) -> Any:
    """Takes a key back."""
    try:
        act("DELETE", f"/keys/{key_id}")
    except ApiError as error:
        return refused(error, "access")
    return done(f"key {key_id} is refused from now on", "access")
