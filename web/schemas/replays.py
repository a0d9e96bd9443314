"""Replays and their plans."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from web.schemas.text import Moment, Text


class ReplaySchema(Schema):
    """Which stored records of a source to drive again: all, or those of a span of time, or of one run."""

    source_name = Text(required=True, validate=validate.Length(min=1, max=100))
    since = Moment(metadata={"description": "stored at or after this time"})
    until = Moment(metadata={"description": "stored before this time"})
    run_id = fields.UUID(metadata={"description": "fetched by this run"})
    dry_run = fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "only say what would change: `GET /replays/{plan_id}`"},
    )
    sample = fields.Integer(
        strict=True,
        validate=validate.Range(1, 1_000_000),
        metadata={"description": "of a dry run: about so many records, evenly spread, instead of all"},
    )

    @validates_schema
    def _fits_together(self, data: dict[str, Any], **_: Any) -> None:
        if "since" in data and "until" in data and data["since"] >= data["until"]:
            raise ValidationError("Must be later than `since`.", "until")
        if "sample" in data and not data["dry_run"]:
            raise ValidationError("Only with `dry_run`.", "sample")


class QueuedReplaySchema(Schema):
    """The run that does it, or the plan of a dry run."""

    run_id = fields.UUID(allow_none=True)
    plan_id = fields.UUID(allow_none=True)
    source_name = fields.String()


class SampleSchema(Schema):
    """A record that would become something else."""

    external_id = fields.String(allow_none=True)
    before = fields.Dict(metadata={"description": "the fields that differ, as they are served"})
    after = fields.Dict(metadata={"description": "the same as they would be"})
    field = fields.String(metadata={"description": "of a rejected one: what broke a rule"})
    rule = fields.String()
    value = fields.String(allow_none=True)
    message = fields.String()


class DiffSchema(Schema):
    """What a replay would do to what is served."""

    records = fields.Integer(metadata={"description": "looked at so far"})
    added = fields.Integer()
    changed = fields.Integer()
    unchanged = fields.Integer()
    mended = fields.Integer(metadata={"description": "in quarantine, and would fit"})
    newly_rejected = fields.Integer(metadata={"description": "not in quarantine, and would not fit"})
    still_rejected = fields.Integer(metadata={"description": "in quarantine, and would stay there"})
    fields_changed = fields.Dict(
        keys=fields.String(), values=fields.Integer(), metadata={"description": "changed items by field"}
    )
    causes = fields.Dict(
        keys=fields.String(), values=fields.Integer(), metadata={"description": "rejected records by field and rule"}
    )
    samples = fields.Dict(
        keys=fields.String(),
        values=fields.List(fields.Nested(SampleSchema)),
        metadata={"description": "a few of those `added`, `changed` and `newly_rejected`"},
    )


class PlanSchema(Schema):
    """What a replay would do. It is kept for a day."""

    plan_id = fields.UUID()
    source_name = fields.String()
    state = fields.String(validate=validate.OneOf(("queued", "running", "done", "failed")))
    message = fields.String(allow_none=True, metadata={"description": "why it failed"})
    since = fields.AwareDateTime(allow_none=True)
    until = fields.AwareDateTime(allow_none=True)
    run_id = fields.UUID(allow_none=True, metadata={"description": "only what this run has stored"})
    mapping_version = fields.Integer(metadata={"description": "by which the records are mapped"})
    one_in = fields.Integer(metadata={"description": "of so many records one is looked at"})
    diff = fields.Nested(DiffSchema)
    created_at = fields.AwareDateTime()
    touched_at = fields.AwareDateTime(metadata={"description": "when it moved last"})
