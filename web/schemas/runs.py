"""Runs, going in and out."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates_schema
from webargs.fields import DelimitedList

from etl.runs.outcome import BatchState, Lane, Status, Trigger
from etl.runs.run_requests import RequestStatus
from web.schemas.data import RequestSchema as AskedSchema
from web.schemas.text import Moment, Text


class RunRequestSchema(Schema):
    """Which sources to run: one, several, or all that are enabled."""

    source = Text(validate=validate.Length(min=1, max=100))
    sources = fields.List(Text(validate=validate.Length(min=1, max=100)), validate=validate.Length(min=1, max=1000))
    error = Text(
        validate=validate.Regexp("^[0-9a-f]{16}$"),
        metadata={"description": "a `fingerprint` of `GET /errors`: the sources whose last run failed of it"},
    )
    full = fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "read all again under today's mapping, whatever is known of the source"},
    )

    accept_deletions = fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        metadata={"description": "of one source with `full_snapshot`: delete what is missing from it, however much"},
    )

    @validates_schema
    def _deletions_of_one(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("accept_deletions") and "source" not in data:
            raise ValidationError("Give the one `source` whose deletions you accept.", "accept_deletions")

    @validates_schema
    def _one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        given = [name for name in ("source", "sources", "error") if name in data]
        if len(given) > 1:
            raise ValidationError("Give one of `source`, `sources` and `error`.", given[1])


class QueuedRunSchema(Schema):
    """A run as it was queued."""

    run_id = fields.UUID()
    source_name = fields.String()
    status = fields.String(validate=validate.OneOf([str(status) for status in RequestStatus]))


class QueuedRunsSchema(Schema):
    """The answer to a request to run."""

    runs = fields.List(fields.Nested(QueuedRunSchema), metadata={"description": "the first 1,000"})
    queued_total = fields.Integer(metadata={"description": "sources that have a new run"})
    already_active_total = fields.Integer(metadata={"description": "sources that keep the run they have"})
    set_aside_total = fields.Integer(
        metadata={"description": "sources that were left out because worker processes died of them"}
    )


class RunErrorSchema(Schema):
    """Why a run did not succeed."""

    code = fields.String()
    message = fields.String()


class ProgressSchema(Schema):
    """How far a run is: batches known so far, and batches loaded."""

    batches_total = fields.Integer()
    batches_loaded = fields.Integer()
    extraction_done = fields.Boolean()
    windows_total = fields.Integer(metadata={"description": "of a backfill"})
    windows_done = fields.Integer(metadata={"description": "of a backfill: read to their ends"})


class RunSchema(Schema):
    """One pass over a source. extracted = inserted + updated + unchanged + duplicate + failed + not_loaded."""

    run_id = fields.UUID()
    source_name = fields.String()
    source_type = fields.String(allow_none=True)
    lane = fields.String(metadata={"description": "fetch, replay or backfill"})
    trigger = fields.String()
    status = fields.String(validate=validate.OneOf([str(status) for status in Status]))
    stage = fields.String()
    attempt = fields.Integer()
    scheduled_for = fields.AwareDateTime(allow_none=True)
    slots_missed = fields.Integer()
    created_at = fields.AwareDateTime()
    started_at = fields.AwareDateTime(allow_none=True)
    extracted_at = fields.AwareDateTime(allow_none=True, metadata={"description": "when all was fetched"})
    completed_at = fields.AwareDateTime(allow_none=True)
    not_before = fields.AwareDateTime(allow_none=True)
    records_extracted = fields.Integer()
    records_loaded = fields.Integer(metadata={"description": "inserted + updated + unchanged"})
    records_changed = fields.Integer(metadata={"description": "inserted + updated"})
    records_corrected = fields.Integer(
        metadata={"description": "of those updated: the same records as before, read otherwise"}
    )
    items_deleted = fields.Integer(metadata={"description": "items that its source has no more; in no other count"})
    rows_skipped = fields.Integer(metadata={"description": "what is no record by `where` or the rules of its file"})
    records_inserted = fields.Integer()
    records_updated = fields.Integer()
    records_unchanged = fields.Integer()
    records_duplicate = fields.Integer()
    records_failed = fields.Integer()
    records_not_loaded = fields.Integer()
    pages = fields.Integer()
    bytes = fields.Integer()
    progress = fields.Nested(ProgressSchema)
    error = fields.Nested(RunErrorSchema, allow_none=True)


class EventSchema(Schema):
    """Something that happened to a run."""

    at = fields.AwareDateTime()
    event = fields.String()
    detail = fields.Dict()


class NumberedEventSchema(EventSchema):
    """An event with its number."""

    event_id = fields.Integer()


class EventsQuerySchema(Schema):
    """Which events."""

    after = fields.Integer(
        load_default=0, validate=validate.Range(0, 2**63 - 1), metadata={"description": "those after this `event_id`"}
    )
    limit = fields.Integer(load_default=500, validate=validate.Range(1, 500))


class EventsSchema(Schema):
    """Events of a run, in order."""

    run_id = fields.UUID()
    status = fields.String(validate=validate.OneOf([str(status) for status in Status]))
    events = fields.List(fields.Nested(NumberedEventSchema))


class RunWithEventsSchema(RunSchema):
    """A run and its timeline."""

    events = fields.List(fields.Nested(EventSchema))


class RunsQuerySchema(Schema):
    """Which runs to list."""

    source_name = Text()
    status = Text(validate=validate.OneOf([str(status) for status in Status]))
    trigger = Text(validate=validate.OneOf([str(trigger) for trigger in Trigger]))
    lane = Text(validate=validate.OneOf([str(lane) for lane in Lane]))
    error_code = Text(validate=validate.Length(1, 100), metadata={"description": "of failed runs"})
    error = Text(validate=validate.Length(1, 64), metadata={"description": "a fingerprint of `GET /errors`"})
    created_after = Moment()
    created_before = Moment()
    ids = DelimitedList(
        fields.UUID(),
        validate=validate.Length(min=1, max=100),
        metadata={"description": "these runs alone, at most 100, with commas between them"},
    )
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 500))
    cursor = Text()

    @validates_schema
    def _ids_alone(self, data: dict[str, Any], **_: Any) -> None:
        if "ids" in data and data.keys() - {"ids", "limit"}:
            raise ValidationError("Give `ids` without other filters.", "ids")


class BatchSchema(Schema):
    """Records that are loaded together."""

    number = fields.Integer()
    part = fields.String(metadata={"description": "of one that was halved, which half"})
    state = fields.String(validate=validate.OneOf([str(state) for state in BatchState]))
    attempt = fields.Integer()
    records_extracted = fields.Integer()
    records_inserted = fields.Integer()
    records_updated = fields.Integer()
    records_unchanged = fields.Integer()
    records_duplicate = fields.Integer()
    records_failed = fields.Integer()
    created_at = fields.AwareDateTime()
    normalized_at = fields.AwareDateTime(allow_none=True)
    loaded_at = fields.AwareDateTime(allow_none=True)
    failure = fields.String(allow_none=True, metadata={"description": "what keeps it from being written"})


class BatchesSchema(Schema):
    """The batches of a run."""

    run_id = fields.UUID()
    status = fields.String()
    batches = fields.List(fields.Nested(BatchSchema))


class RequestsSchema(Schema):
    """The requests of a run."""

    run_id = fields.UUID()
    status = fields.String()
    requests = fields.List(fields.Nested(AskedSchema))


class RunsSchema(Schema):
    """A page of runs, newest first."""

    runs = fields.List(fields.Nested(RunSchema))
    next_cursor = fields.String(allow_none=True)


class ErrorsQuerySchema(Schema):
    """Which errors to group."""

    hours = fields.Integer(load_default=24, validate=validate.Range(1, 720))
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 200))


class ErrorGroupSchema(Schema):
    """Failed runs with one cause: their code, host and message, less what differs from run to run."""

    fingerprint = fields.String()
    code = fields.String()
    message = fields.String(metadata={"description": "that of the newest"})
    runs = fields.Integer()
    sources_total = fields.Integer()
    sources = fields.List(fields.String(), metadata={"description": "at most 20"})
    first_seen_at = fields.AwareDateTime()
    last_seen_at = fields.AwareDateTime()
    sample_run_id = fields.UUID()
    sample_source = fields.String()


class ErrorGroupsSchema(Schema):
    """What runs have failed of, the commonest first."""

    since = fields.AwareDateTime()
    runs_total = fields.Integer(metadata={"description": "failed runs that were looked at"})
    is_complete = fields.Boolean(metadata={"description": "false: there are more; the newest 10,000 were looked at"})
    groups = fields.List(fields.Nested(ErrorGroupSchema))
