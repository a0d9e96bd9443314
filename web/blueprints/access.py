"""Keys: who may call; and the record of what was written by whom."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import marshmallow as ma
from flask.views import MethodView

from db.queries.audit import list_writes
from db.queries.keys import create_key, list_keys, revoke_key, rotate_key
from etl.access.roles import Role
from etl.errors import UnknownKeyError
from web.callers import caller
from web.errors import problem
from web.extensions import service
from web.present.access import present_key, present_keys, present_writes
from web.requests import Resource
from web.schemas.access import (
    AuditQuerySchema,
    AuditSchema,
    KeyRequestSchema,
    KeySchema,
    KeysQuerySchema,
    KeysSchema,
    NewKeySchema,
    RotationSchema,
)
from web.schemas.problem import NoQuerySchema
from web.writes import current

if TYPE_CHECKING:
    from sqlalchemy import Row

    from etl.access.keys import NewKey

blueprint = Resource("access", __name__, description="Who may call, and who did what.")
# Of a column of type integer.
_LARGEST = 2**31 - 1


@blueprint.route("/keys")
class Keys(MethodView):
    """All keys."""

    @blueprint.arguments(KeysQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, KeysSchema)
    @blueprint.doc(operationId="list_keys")
    @blueprint.needs(Role.ADMIN)
    def get(self, query: dict[str, Any]) -> Any:
        """List API keys, those that were taken back too; those of `API_KEYS` in the settings are not among them."""
        limit: int = query["limit"]
        after = min(query["cursor"], _LARGEST)
        return present_keys(service().database.read(list_keys, limit=limit + 1, after=after), limit)

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(KeyRequestSchema)
    @blueprint.write("create_key", Role.ADMIN)
    @blueprint.response(201, NewKeySchema)
    @blueprint.problem(409, "It was made by an earlier request with this `Idempotency-Key`, and is not shown again.")
    def post(self, wanted: dict[str, Any]) -> Any:
        """Make a key with a role, and perhaps an end. Only its hash is stored: this answer alone shows it."""
        expires_at = wanted.get("expires_at")
        made = create_key(current().connection, wanted["name"], Role(wanted["role"]), caller().name, expires_at)
        return _new(*made)


@blueprint.route("/keys/<int:key_id>")
class Key(MethodView):
    """One key."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.write("revoke_key", Role.ADMIN)
    @blueprint.response(200, KeySchema)
    @blueprint.problem(404, "There is no such key that counts.")
    def delete(self, key_id: int) -> Any:
        """Take a key back. From now on it is refused."""
        gone = present_key(revoke_key(current().connection, _known(key_id)))
        current().target, current().detail = f"key {key_id}", {"after": gone}
        return gone


@blueprint.route("/keys/<int:key_id>/rotate")
class KeyRotation(MethodView):
    """A key in the place of another."""

    @blueprint.arguments(NoQuerySchema, location="query", unknown=ma.RAISE, as_kwargs=True)
    @blueprint.arguments(RotationSchema)
    @blueprint.write("rotate_key", Role.ADMIN)
    @blueprint.response(201, NewKeySchema)
    @blueprint.problem(404, "There is no such key that counts.")
    @blueprint.problem(409, "It was replaced before, or by an earlier request with this `Idempotency-Key`.")
    def post(self, wanted: dict[str, Any], key_id: int) -> Any:
        """Replace a key by a new one with the same name, role and end; the old one goes on for `overlap` seconds."""
        made = rotate_key(current().connection, _known(key_id), caller().name, wanted["overlap"])
        return _new(*made, replaces=key_id)


@blueprint.route("/audit")
class Audit(MethodView):
    """All writes."""

    @blueprint.arguments(AuditQuerySchema, location="query", unknown=ma.RAISE)
    @blueprint.response(200, AuditSchema)
    @blueprint.doc(operationId="list_writes")
    @blueprint.needs(Role.ADMIN)
    def get(self, query: dict[str, Any]) -> Any:
        """List what was written over the API and by commands, newest first: who did what, to what, before and after."""
        limit: int = query["limit"]
        given = {name: query.get(name) for name in ("actor", "action", "target")}
        with service().slow.enter():
            rows = service().database.read(list_writes, **given, before=query.get("cursor"), limit=limit + 1)
        return present_writes(rows, limit)


def _known(key_id: int) -> int:
    if key_id > _LARGEST:
        raise UnknownKeyError(f"there is no key {key_id} that counts")
    return key_id


def _new(row: Row[Any], new: NewKey, **more: Any) -> dict[str, Any]:
    """What is answered once; who repeats the request learns that it was made."""
    write = current()
    write.target, write.detail = f"key {row.key_id}", {"after": present_key(row), **more}
    shown_before = "the key was made, and shown once; rotate it if that was lost"
    write.kept_answer = problem(HTTPStatus.CONFLICT, shown_before, code="key_shown")
    return present_key(row, new)
