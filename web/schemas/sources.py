"""Sources: listed, shown, declared, paused; and what became of their mappings."""

from __future__ import annotations

from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate, validates_schema
from webargs.fields import DelimitedList

from db.queries.source_list import State
from etl.declare.revision import Origin
from etl.declare.source import SOURCE_TYPES
from etl.runs.why import Cause
from web.schemas.overview import SourceCountsSchema
from web.schemas.text import Moment, Text

_TAG = validate.Regexp("^[a-z0-9_-]{1,50}$")


class DifferenceSchema(Schema):
    """A key of the document that says something else than before."""

    key = fields.String(metadata={"description": "such as `map.amount` or `timezone`"})
    before = fields.Raw(allow_none=True, metadata={"description": "null where it was not given"})
    after = fields.Raw(allow_none=True)


class MappingSchema(Schema):
    """A mapping version: all items that name it were made in the same way."""

    mapping_version = fields.Integer()
    made_at = fields.AwareDateTime()
    made_by = fields.String(metadata={"description": "`file`, `upgrade` for a release, or who called"})
    reader = fields.Integer(metadata={"description": "which reading of times, numbers and texts it has"})
    differences = fields.List(
        fields.Nested(DifferenceSchema), metadata={"description": "from the version before; none for the first"}
    )


class MappingsSchema(Schema):
    """The mapping versions of a source, newest first."""

    source_name = fields.String()
    mappings = fields.List(fields.Nested(MappingSchema))


class MappingsQuerySchema(Schema):
    """How many to list."""

    limit = fields.Integer(load_default=20, validate=validate.Range(1, 100))


class VersionSchema(Schema):
    """A source as it was declared at some time."""

    version = fields.Integer()
    mapping_version = fields.Integer()
    made_at = fields.AwareDateTime()
    made_by = fields.String(metadata={"description": "`file`, `upgrade` for a release, or who called"})
    source = fields.Dict(metadata={"description": "the document"})
    differences = fields.List(fields.Nested(DifferenceSchema), metadata={"description": "from the version before"})


class VersionsSchema(Schema):
    """The versions of a source, newest first."""

    source_name = fields.String()
    versions = fields.List(fields.Nested(VersionSchema))
    next_cursor = fields.Integer(allow_none=True)


class VersionsQuerySchema(Schema):
    """How many to list, and from where."""

    limit = fields.Integer(load_default=20, validate=validate.Range(1, 100))
    cursor = fields.Integer(validate=validate.Range(1, 2**31 - 1))


class FieldSchema(Schema):
    """A field of a source's records, or of its items."""

    scope = fields.String(validate=validate.OneOf(["record", "item"]))
    field = fields.String()
    first_seen_at = fields.AwareDateTime()
    last_seen_at = fields.AwareDateTime()
    seen = fields.Float(metadata={"description": "in how many records lately; what is long ago counts less"})
    kinds = fields.Dict(metadata={"description": "how often it was of which kind"})
    sample = fields.String(allow_none=True)
    drift = fields.Dict(allow_none=True, metadata={"description": "what is otherwise than it was"})


class DriftSchema(Schema):
    """What the records of a source look like, and what of it has changed; that comes first."""

    source_name = fields.String()
    drifted = fields.Integer()
    fields_ = fields.List(fields.Nested(FieldSchema), data_key="fields", attribute="fields")


class CauseSchema(Schema):
    """Something that keeps a source from being read, or well."""

    code = fields.String(validate=validate.OneOf([str(cause) for cause in Cause]))
    message = fields.String()
    since = fields.AwareDateTime(allow_none=True)
    until = fields.AwareDateTime(allow_none=True)
    action = fields.String(metadata={"description": "what to do"})


class WhySchema(Schema):
    """Why a source is late or not well: the cause first; nothing of one that is on time and well."""

    source_name = fields.String()
    on_time = fields.Boolean()
    reasons = fields.List(fields.Nested(CauseSchema))


class ChosenSchema(Schema):
    """Which sources are meant."""

    type = Text(validate=validate.OneOf(SOURCE_TYPES))
    origin = Text(validate=validate.OneOf([str(origin) for origin in Origin]))
    name = Text(validate=validate.Length(1, 100), metadata={"description": "a part of the name"})
    state = Text(validate=validate.OneOf([str(state) for state in State]))


class SourcesQuerySchema(ChosenSchema):
    """Which sources to list, and how."""

    tags = DelimitedList(
        Text(validate=_TAG),
        validate=validate.Length(1, 20),
        metadata={"description": "with commas between them; sources that have all of them"},
    )
    format = Text(
        load_default="json",
        validate=validate.OneOf(["json", "yaml"]),
        metadata={"description": "`yaml`: all of them, as one document that `POST /sources/apply` takes"},
    )
    details = fields.Boolean(
        load_default=False, metadata={"description": "with the last 20 runs of each, its open rejects, and all counts"}
    )
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 500))
    cursor = Text(load_default="", validate=validate.Length(max=100))

    @validates_schema
    def _all_at_once(self, data: dict[str, Any], **_: Any) -> None:
        if data["format"] == "yaml" and data["cursor"]:
            raise ValidationError("All are in one document.", "cursor")


class SourceSummarySchema(Schema):
    """A source, and how it is."""

    name = fields.String()
    type = fields.String()
    enabled = fields.Boolean()
    tags = fields.List(fields.String())
    origin = fields.String(metadata={"description": "`file` or `api`: where it is declared, and changed"})
    version = fields.Integer(metadata={"description": "rises with each change; for `If-Match`"})
    mapping_version = fields.Integer()
    schedule = fields.Dict()
    paused = fields.Boolean()
    paused_until = fields.AwareDateTime(allow_none=True, metadata={"description": "null: until it is resumed"})
    status = fields.String(metadata={"description": "of its last run, or `gone`, `set_aside`, `never_run`"})
    last_run_at = fields.AwareDateTime(allow_none=True)
    last_success_at = fields.AwareDateTime(allow_none=True)
    last_failure_at = fields.AwareDateTime(allow_none=True)
    next_run_at = fields.AwareDateTime(allow_none=True)
    not_before = fields.AwareDateTime(allow_none=True)
    not_before_reason = fields.String(allow_none=True)
    gone_reason = fields.String(allow_none=True)
    late = fields.Boolean()
    empty = fields.Boolean()
    odd_size = fields.Boolean()
    total_items = fields.Integer()
    created_at = fields.AwareDateTime()
    updated_at = fields.AwareDateTime()


class RecentRunSchema(Schema):
    """One of the last runs of a source."""

    run_id = fields.UUID()
    status = fields.String()
    records = fields.Integer(metadata={"description": "that it met"})
    seconds = fields.Float(allow_none=True)
    created_at = fields.AwareDateTime()


class ListedSourceSchema(SourceSummarySchema):
    """A source in a list."""

    recent_runs = fields.List(
        fields.Nested(RecentRunSchema), metadata={"description": "in a list only with `details`; oldest first"}
    )
    open_rejects = fields.Integer(metadata={"description": "in a list only with `details`; counted up to 1,000"})


class SourceSchema(ListedSourceSchema):
    """A source with its document."""

    source = fields.Dict(metadata={"description": "the document, as sources.schema.json describes it"})
    warnings = fields.List(fields.String())


class SourcesSchema(Schema):
    """A page of sources, by name."""

    sources = fields.List(fields.Nested(ListedSourceSchema))
    counts = fields.Nested(SourceCountsSchema, metadata={"description": "with `details`: all sources by state"})
    next_cursor = fields.String(allow_none=True)


class DocumentSchema(Schema):
    """A source as sources.schema.json describes it; a secret is named as `${NAME}`."""

    class Meta:
        """What a source may say is judged as the file of sources is."""

        unknown = INCLUDE

    name = fields.Raw(metadata={"description": "if given, that of the address"})


class DeletionQuerySchema(Schema):
    """What goes with a source."""

    data = fields.Boolean(load_default=False, metadata={"description": "its items too"})


class DeletedSchema(Schema):
    """A source that is no more."""

    name = fields.String()
    cancelled_runs = fields.List(fields.UUID())
    items_deleted = fields.Boolean(metadata={"description": "they are marked as deleted within the next minutes"})


class PauseSchema(Schema):
    """Until when."""

    until = Moment(allow_none=True, metadata={"description": "null or absent: until it is resumed"})


class ApplyQuerySchema(Schema):
    """How a document is applied."""

    dry_run = fields.Boolean(load_default=False, metadata={"description": "only say what would change"})
    prune = fields.Boolean(
        load_default=False,
        metadata={"description": "disable the sources that were declared over the API and are not in it"},
    )


class ChangedSchema(Schema):
    """A source that is declared otherwise than before."""

    name = fields.String()
    differences = fields.List(fields.Nested(DifferenceSchema))


class AppliedSchema(Schema):
    """What a document changed, or would."""

    dry_run = fields.Boolean()
    created = fields.List(fields.String())
    changed = fields.List(fields.Nested(ChangedSchema))
    disabled = fields.List(fields.String())
    missing = fields.List(
        fields.String(), metadata={"description": "declared over the API, and not in the document; they go on"}
    )
    unchanged_total = fields.Integer()


class FilterSchema(ChosenSchema):
    """All sources that are like this; an empty one means all."""

    tags = fields.List(Text(validate=_TAG), validate=validate.Length(1, 20))


class BulkSchema(Schema):
    """What to do, and to which sources: those named, or those that are like this."""

    action = Text(required=True, validate=validate.OneOf(["run", "retry", "pause", "resume"]))
    names = fields.List(Text(validate=validate.Length(1, 100)), validate=validate.Length(1, 10_000))
    filter = fields.Nested(FilterSchema)
    until = Moment(allow_none=True, metadata={"description": "of a pause; null or absent: until it is resumed"})
    dry_run = fields.Boolean(load_default=False, metadata={"description": "only count them"})

    @validates_schema
    def _one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        if ("names" in data) == ("filter" in data):
            raise ValidationError("Give either `names` or `filter`.", "names")
        if "until" in data and data.get("action") != "pause":
            raise ValidationError("Only a pause has an end.", "until")


class BulkDoneSchema(Schema):
    """To how many it was done."""

    action = fields.String()
    dry_run = fields.Boolean()
    matched = fields.Integer(metadata={"description": "sources that are meant"})
    done = fields.Integer(metadata={"description": "of those, changed, or queued"})
    left_out = fields.Integer(metadata={"description": "disabled, paused, set aside, active already, or not failing"})
    names = fields.List(fields.String(), metadata={"description": "of those meant, the first 100"})
