"""Circuit breakers."""

from __future__ import annotations

from marshmallow import Schema, fields, validate

from etl.hosts.breaker import State


class BreakerSchema(Schema):
    """A host: open means that nobody calls it, half open that one probe may."""

    host = fields.String(metadata={"description": "name, or name:port when the port is not the usual one"})
    state = fields.String(validate=validate.OneOf([str(state) for state in State]))
    failures = fields.Integer(metadata={"description": "failed calls in a row"})
    opened_at = fields.AwareDateTime(allow_none=True)
    retry_at = fields.AwareDateTime(allow_none=True, metadata={"description": "when the next probe may go out"})
    probing = fields.Boolean()
    reason = fields.String(allow_none=True, metadata={"description": "the last failure"})
    paused_until = fields.AwareDateTime(allow_none=True, metadata={"description": "the host asked for a pause"})
    pause_reason = fields.String(allow_none=True)


class BreakersSchema(Schema):
    """Hosts of which something is remembered; all others are closed."""

    breakers = fields.List(fields.Nested(BreakerSchema))
