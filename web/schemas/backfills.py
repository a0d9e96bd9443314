"""Backfills."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from etl.declare.duration import PATTERN
from etl.runs.backfills import MOST_WINDOWS, Existing
from web.schemas.text import Moment, Text


class BackfillSchema(Schema):
    """Which range of the past of a source to fetch."""

    source_name = Text(required=True, validate=validate.Length(min=1, max=100))
    start = Moment(required=True, data_key="from", metadata={"description": "the first time of it"})
    end = Moment(required=True, data_key="to", metadata={"description": "the first time after it"})
    window = Text(
        validate=validate.Regexp(PATTERN, error="Must be a number and a unit, such as 6h or 1d."),
        metadata={"description": f"how much is asked for at once, such as 1d; at most {MOST_WINDOWS} windows"},
    )
    existing = fields.Enum(
        Existing,
        by_value=True,
        load_default=Existing.UPDATE,
        metadata={"description": "what becomes of records whose ids are there: loaded, or left alone"},
    )
    dry_run = fields.Boolean(
        load_default=False, truthy={True}, falsy={False}, metadata={"description": "only say how much it would be"}
    )

    @validates_schema
    def _is_upright(self, data: dict[str, Any], **_: Any) -> None:
        if data["start"] >= data["end"]:
            raise ValidationError("Must be later than `from`.", "to")


class WindowSchema(Schema):
    """A part of the range: its first time, and the first after it."""

    start = fields.AwareDateTime(data_key="from")
    end = fields.AwareDateTime(data_key="to")


class QueuedBackfillSchema(Schema):
    """The run that does it, or only the plan."""

    run_id = fields.UUID(allow_none=True, metadata={"description": "null for a dry run"})
    source_name = fields.String()
    windows = fields.Integer()
    window_seconds = fields.Float()
    first = fields.Nested(WindowSchema)
    last = fields.Nested(WindowSchema)
    requests_at_least = fields.Integer(metadata={"description": "one a window; more where it has several pages"})
    requests_at_most = fields.Integer(metadata={"description": "by `paginate.max_pages`; retries are not counted"})
    seconds_at_least = fields.Float(metadata={"description": "by the `rate` of the source; 0 without one"})
