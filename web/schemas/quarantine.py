"""Rejected records, and what is done with them."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from web.schemas.text import Text

STATES = ("open", "redriven", "discarded", "superseded")
MAX_IDS = 1000


class FaultSchema(Schema):
    """A rule that a field broke."""

    field = fields.String()
    rule = fields.String()
    value = fields.String(allow_none=True, metadata={"description": "as far as it is shown"})
    message = fields.String()


class EarlierFaultSchema(FaultSchema):
    """What was wrong before it was driven again."""

    mapping_version = fields.Integer()


class CaseSchema(FaultSchema):
    """A rejected record: the first of its fields that broke a rule, and when."""

    id = fields.Integer()
    source_name = fields.String()
    source_type = fields.String()
    external_id = fields.String(allow_none=True)
    state = fields.String(validate=validate.OneOf(STATES))
    stage = fields.String(metadata={"description": "extract: it could not be kept as JSON; normalize: it fits no item"})
    mapping_version = fields.Integer(metadata={"description": "by which it was judged last"})
    attempts = fields.Integer(metadata={"description": "how often it was judged"})
    reason = fields.String(allow_none=True, metadata={"description": "why it was put away"})
    redrivable = fields.Boolean(metadata={"description": "false where no stored record is left to be driven again"})
    run_id = fields.UUID(metadata={"description": "the run that fetched it"})
    driven_by = fields.UUID(allow_none=True, metadata={"description": "the run that drove it again last"})
    first_seen_at = fields.AwareDateTime()
    last_seen_at = fields.AwareDateTime()


class CaseDetailSchema(CaseSchema):
    """A rejected record as a whole."""

    errors = fields.List(fields.Nested(FaultSchema), metadata={"description": "every field that broke a rule"})
    earlier = fields.List(
        fields.Nested(EarlierFaultSchema), metadata={"description": "reasons before this one, newest first"}
    )
    raw_data_id = fields.Integer(allow_none=True)
    raw_payload = fields.Raw(allow_none=True, metadata={"description": "the record as the source gave it"})
    raw_text = fields.String(
        allow_none=True, metadata={"description": "of one that is no JSON: its beginning, unreadable bytes replaced"}
    )
    raw_truncated = fields.Boolean()


class CaseFilterSchema(Schema):
    """Which cases."""

    source_name = Text(validate=validate.Length(min=1, max=100))
    field = Text(validate=validate.Length(max=200), metadata={"description": "the first field that broke a rule"})
    rule = Text(validate=validate.Length(min=1, max=100), metadata={"description": "the rule that it broke"})


class CasesQuerySchema(CaseFilterSchema):
    """Which cases to list."""

    state = Text(load_default="open", validate=validate.OneOf(STATES))
    run_id = fields.UUID()
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 500))
    cursor = fields.Integer(
        validate=validate.Range(1, 2**63 - 1), metadata={"description": "`next_cursor` of the page before"}
    )


class CasesSchema(Schema):
    """A page of cases, newest first."""

    cases = fields.List(fields.Nested(CaseSchema))
    next_cursor = fields.Integer(allow_none=True)


class GroupSchema(Schema):
    """Open cases with the same cause."""

    source_name = fields.String()
    field = fields.String()
    rule = fields.String()
    count = fields.Integer()
    first_seen_at = fields.AwareDateTime()
    last_seen_at = fields.AwareDateTime()
    sample = fields.Nested(CaseSchema)


class GroupsSchema(Schema):
    """The causes of open cases, the commonest first."""

    groups = fields.List(fields.Nested(GroupSchema))


class GroupsQuerySchema(Schema):
    """Whose cases, and how many causes to list."""

    source_name = Text(validate=validate.Length(min=1, max=100))
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 500))


class ChosenCasesSchema(CaseFilterSchema):
    """Open cases of a source: all, those with a cause, or these."""

    ids = fields.List(fields.Integer(validate=validate.Range(1, 2**63 - 1)), validate=validate.Length(1, MAX_IDS))

    @validates_schema
    def _chosen(self, data: dict[str, Any], **_: Any) -> None:
        if "source_name" not in data:
            raise ValidationError("Missing data for required field.", "source_name")
        if "ids" in data and {"field", "rule"} & data.keys():
            raise ValidationError("Give `ids` without `field` and `rule`.", "ids")


class RedriveSchema(ChosenCasesSchema):
    """What to drive again."""

    dry_run = fields.Boolean(
        load_default=False, truthy={True}, falsy={False}, metadata={"description": "only count what is meant"}
    )


class RedrivenSchema(Schema):
    """What is driven again."""

    cases = fields.Integer(metadata={"description": "open cases that are meant"})
    not_redrivable = fields.Integer(metadata={"description": "of them, those without a stored record"})
    run_id = fields.UUID(allow_none=True, metadata={"description": "the run that does it; none of a dry run"})


class DiscardSchema(ChosenCasesSchema):
    """What to put away, and why."""

    reason = Text(required=True, validate=validate.Length(min=1, max=1000))


class DiscardedSchema(Schema):
    """How much was put away."""

    discarded = fields.Integer()
