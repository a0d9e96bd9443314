"""Previews."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from web.schemas.runs import RunErrorSchema
from web.schemas.text import Text


class PreviewRequestSchema(Schema):
    """Which source to read a little: one that is saved, or a document as in `sources.yaml`."""

    source_name = Text(validate=validate.Length(min=1, max=100))
    source = fields.Dict(keys=Text())
    records = fields.Integer(strict=True, load_default=20, validate=validate.Range(1, 100))
    seconds = fields.Float(
        load_default=20.0,
        validate=validate.Range(1, 30),
        metadata={"description": "for how long it may be read; mapping and checking come after that"},
    )

    @validates_schema
    def _one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        if ("source" in data) == ("source_name" in data):
            raise ValidationError("Give either `source` or `source_name`.", "source")


class WarnedSchema(Schema):
    """What an operator should know."""

    code = fields.String()
    message = fields.String()


class ExchangeSchema(Schema):
    """A request that was made, and the beginning of its answer; without secrets."""

    at = fields.Float(metadata={"description": "seconds since 1970"})
    method = fields.String()
    url = fields.String()
    status = fields.Integer(allow_none=True)
    bytes = fields.Integer()
    seconds = fields.Float()
    attempt = fields.Integer()
    error = fields.String(allow_none=True)
    headers = fields.Dict(keys=fields.String(), values=fields.String())
    body = fields.String(allow_none=True, metadata={"description": "its first 2,000 bytes"})


class BrokenRuleSchema(Schema):
    """A rule that records broke."""

    field = fields.String()
    rule = fields.String()
    records = fields.Integer()
    value = fields.String(allow_none=True, metadata={"description": "of one of them"})
    message = fields.String()


class PreviewSchema(Schema):
    """What was met, and what would become of it. After an `error` what came before it is shown."""

    source_name = fields.String(allow_none=True)
    source_type = fields.String(allow_none=True)
    error = fields.Nested(RunErrorSchema, allow_none=True)
    has_more = fields.Boolean(metadata={"description": "it was left off, since there were enough records"})
    pages = fields.Integer()
    rows_skipped = fields.Integer()
    warnings = fields.List(fields.Nested(WarnedSchema))
    requests = fields.List(fields.Nested(ExchangeSchema))
    dialect = fields.Dict(allow_none=True, metadata={"description": "of CSV: how it is written, declared or found out"})
    paging = fields.Dict(
        allow_none=True, metadata={"description": "of an API: `style`, `pages_read`, and what is `suggested`"}
    )
    records = fields.List(
        fields.Raw(allow_none=True), metadata={"description": "as they came; null for one over 32 KiB"}
    )
    items = fields.List(fields.Dict(allow_none=True), metadata={"description": "what would be served"})
    rejects = fields.List(fields.Dict(), metadata={"description": "`record` (its place) and its `errors`"})
    unstorable = fields.List(fields.Dict(), metadata={"description": "what cannot be kept as JSON"})
    refused = fields.List(fields.Dict(), metadata={"description": "what the database would refuse, and why"})
    filled = fields.Dict(
        keys=fields.String(), values=fields.Float(), metadata={"description": "the share of items with a value"}
    )
    broken_rules = fields.List(fields.Nested(BrokenRuleSchema))
    ids = fields.Dict(keys=fields.String(), values=fields.Integer())
    suggested_map = fields.Dict(keys=fields.String(), values=fields.String())
    suggested_records = fields.String(
        allow_none=True, metadata={"description": "where no record was found: the path to a list of objects"}
    )
    mapped_from = fields.Dict(keys=fields.String(), values=fields.String())
