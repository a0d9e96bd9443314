"""Alerts: what stands, what was told of it, to whom, and what nobody wants to hear of."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from etl.alerts.cause import Cause, Kind
from etl.alerts.incident import Delivery, Event, Told
from web.schemas.text import Moment, Text

SCOPES = ("cause", "source", "tag")


class AlertsQuerySchema(Schema):
    """Which messages to list."""

    limit = fields.Integer(load_default=50, validate=validate.Range(1, 200))
    cursor = Text()


class DeliverySchema(Schema):
    """A message on its way to one address."""

    destination = fields.String(metadata={"description": "an address of ALERT_URLS, without what is secret in it"})
    state = fields.String(validate=validate.OneOf([str(state) for state in Delivery]))
    attempts = fields.Integer()
    due_at = fields.AwareDateTime(allow_none=True, metadata={"description": "when it is sent, or sent again"})
    sent_at = fields.AwareDateTime(allow_none=True)
    error = fields.String(allow_none=True, metadata={"description": "why the last attempt failed"})


class AlertCauseSchema(Schema):
    """What a message is about."""

    cause = fields.String()
    incident = fields.String(allow_none=True, metadata={"description": "the same from the first message to the last"})
    since = fields.AwareDateTime()


class AlertSchema(Schema):
    """A message."""

    alert_id = fields.UUID()
    event = fields.String(validate=validate.OneOf([str(event) for event in Event]))
    kind = fields.String(allow_none=True, validate=validate.OneOf([str(kind) for kind in Kind]))
    title = fields.String()
    message = fields.String()
    causes = fields.List(fields.Nested(AlertCauseSchema))
    sources = fields.List(fields.String(), metadata={"description": "at most 100"})
    sources_total = fields.Integer()
    created_at = fields.AwareDateTime()
    deliveries = fields.List(fields.Nested(DeliverySchema))


class StandingCauseSchema(Schema):
    """A cause that stands."""

    cause = fields.String(metadata={"description": "what `POST /alerts/mute` takes"})
    kind = fields.String(validate=validate.OneOf([str(kind) for kind in Kind]))
    subject = fields.String(allow_none=True, metadata={"description": "a host, a source, or a group of failures"})
    since = fields.AwareDateTime()
    message = fields.String(allow_none=True)
    told = fields.String(validate=validate.OneOf([str(told) for told in Told]))
    told_at = fields.AwareDateTime(allow_none=True)
    incident = fields.UUID(allow_none=True)
    sources = fields.List(fields.String(), metadata={"description": "at most 100"})
    sources_total = fields.Integer()


class DestinationSchema(Schema):
    """An address that alerts go to."""

    name = fields.String()
    tags = fields.List(fields.String(), metadata={"description": "only what concerns sources with one of these"})


class MuteSchema(Schema):
    """What nobody wants to be told of."""

    scope = fields.String(validate=validate.OneOf(["all", *SCOPES]))
    subject = fields.String(allow_none=True)
    until = fields.AwareDateTime()
    reason = fields.String(allow_none=True)
    made_by = fields.String()
    made_at = fields.AwareDateTime()


class AlertsSchema(Schema):
    """What stands, and a page of messages, newest first."""

    standing = fields.List(fields.Nested(StandingCauseSchema), metadata={"description": "at most 100, newest first"})
    alerts = fields.List(fields.Nested(AlertSchema))
    next_cursor = fields.String(allow_none=True)
    destinations = fields.List(fields.Nested(DestinationSchema))
    mutes = fields.List(fields.Nested(MuteSchema), metadata={"description": "at most 100, what ends first first"})


class MuteRequestSchema(Schema):
    """What to mute, and until when: one of `all`, `cause`, `source` and `tag`."""

    all = fields.Boolean(truthy={True}, falsy=set(), metadata={"description": "true: everything"})
    cause = Text(validate=validate.Length(1, 400))
    source = Text(validate=validate.Length(1, 100))
    tag = Text(validate=validate.Length(1, 50))
    until = Moment(required=True, allow_none=True, metadata={"description": "null ends it"})
    reason = Text(validate=validate.Length(1, 500))

    @validates_schema
    def _one(self, data: dict[str, Any], **_: object) -> None:
        if len(data.keys() & {"all", *SCOPES}) != 1:
            raise ValidationError("Exactly one of all, cause, source and tag is needed.")
        if "cause" in data:
            try:
                Cause.of_key(data["cause"])
            except ValueError:
                kinds = ", ".join(Kind)
                raise ValidationError(f"Not a cause; one begins with {kinds}.", "cause") from None
        until: datetime | None = data.get("until")
        if until is not None and until <= datetime.now(until.tzinfo):
            raise ValidationError("Must lie ahead.", "until")


class MutesSchema(Schema):
    """All that is muted now."""

    mutes = fields.List(fields.Nested(MuteSchema))
