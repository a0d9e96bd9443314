"""Keys, and the record of writes."""

from __future__ import annotations

from datetime import UTC, datetime

from marshmallow import Schema, ValidationError, fields, validate, validates

from etl.access.roles import Role
from web.requests import MAX_ID
from web.schemas.text import Moment, Text

# How long a key that was replaced may go on: seconds.
LONGEST_OVERLAP = 7 * 86_400


class KeyRequestSchema(Schema):
    """A key to be made."""

    name = Text(required=True, validate=validate.Length(1, 100), metadata={"description": "whose, or what for"})
    role = Text(required=True, validate=validate.OneOf([str(role) for role in Role]))
    expires_at = Moment(allow_none=True, metadata={"description": "null or absent: it does not end by itself"})

    @validates("expires_at")
    def _to_come(self, value: datetime | None, **_: object) -> None:
        if value is not None and value <= datetime.now(UTC):
            raise ValidationError("Must lie ahead.")


class RotationSchema(Schema):
    """A key to be replaced."""

    overlap = fields.Integer(
        load_default=3600,
        validate=validate.Range(0, LONGEST_OVERLAP),
        metadata={"description": "for so many seconds the old one goes on"},
    )


class KeySchema(Schema):
    """A key; the key itself is shown once, when it is made."""

    key_id = fields.Integer()
    prefix = fields.String(metadata={"description": "how it begins"})
    name = fields.String()
    role = fields.String(validate=validate.OneOf([str(role) for role in Role]))
    created_at = fields.AwareDateTime()
    created_by = fields.String()
    expires_at = fields.AwareDateTime(allow_none=True)
    last_used_at = fields.AwareDateTime(allow_none=True, metadata={"description": "right to a minute"})
    revoked_at = fields.AwareDateTime(allow_none=True)


class NewKeySchema(KeySchema):
    """A key that was just made."""

    key = fields.String(metadata={"description": "keep it: it is not stored, and not shown again"})


class KeysQuerySchema(Schema):
    """Which keys to list."""

    limit = fields.Integer(load_default=100, validate=validate.Range(1, 500))
    cursor = fields.Integer(load_default=0, validate=validate.Range(0, MAX_ID))


class KeysSchema(Schema):
    """A page of keys, in the order in which they were made."""

    keys = fields.List(fields.Nested(KeySchema))
    next_cursor = fields.Integer(allow_none=True)


class AuditQuerySchema(Schema):
    """Which writes to list."""

    actor = Text(metadata={"description": "as an entry shows it"})
    action = Text(metadata={"description": "the operationId of the call, such as `start_runs`"})
    target = Text(metadata={"description": "the source, run or other thing that was written"})
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 500))
    cursor = fields.Integer(validate=validate.Range(0, MAX_ID))


class AuditEntrySchema(Schema):
    """A write."""

    audit_id = fields.Integer()
    at = fields.AwareDateTime()
    actor = fields.String(metadata={"description": "a key by name and prefix, `API_KEYS`, `loopback` or `cli`"})
    action = fields.String()
    target = fields.String(allow_none=True)
    detail = fields.Dict(metadata={"description": "what was asked, and what it was before and after"})


class AuditSchema(Schema):
    """A page of writes, newest first."""

    entries = fields.List(fields.Nested(AuditEntrySchema))
    next_cursor = fields.Integer(allow_none=True)
