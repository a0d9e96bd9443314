"""Totals and health."""

from __future__ import annotations

from enum import StrEnum

from marshmallow import Schema, fields, validate

from web.schemas.runs import RunSchema


class FlagsSchema(Schema):
    """What is odd about when a source was read last, and what was in it."""

    late = fields.Boolean(metadata={"description": "not read for longer than `expect_every`, or three of its slots"})
    empty = fields.Boolean(metadata={"description": "the last complete run met no records, as others did"})
    odd_size = fields.Boolean(
        metadata={"description": "it met fewer or more than `expect_rows`, or than half or twice what is usual"}
    )


class SourceStatisticsSchema(FlagsSchema):
    """The totals of one source. success_rate is a percentage, null before the first run ended."""

    source_name = fields.String()
    source_type = fields.String()
    total_records = fields.Integer()
    success_rate = fields.Float(allow_none=True)
    total_runs = fields.Integer()
    avg_records_per_run = fields.Float(allow_none=True)
    last_success_at = fields.AwareDateTime(allow_none=True)
    last_failure_at = fields.AwareDateTime(allow_none=True)


class StatsQuerySchema(Schema):
    """Which page of the sources."""

    page = fields.Integer(load_default=1, validate=validate.Range(min=1, max=100_000))
    page_size = fields.Integer(load_default=100, validate=validate.Range(1, 100))


class StatsSchema(Schema):
    """Totals over everything."""

    total_records = fields.Integer()
    total_sources = fields.Integer()
    active_sources = fields.Integer()
    records_by_source_type = fields.Dict(keys=fields.String(), values=fields.Integer())
    source_statistics = fields.List(fields.Nested(SourceStatisticsSchema))
    recent_runs = fields.List(fields.Nested(RunSchema))
    last_etl_success = fields.AwareDateTime(allow_none=True)
    last_etl_failure = fields.AwareDateTime(allow_none=True)
    avg_etl_duration_seconds = fields.Float(allow_none=True)


class ReasonSchema(Schema):
    """Why the service is not healthy, and since when if that is known."""

    code = fields.String()
    message = fields.String()
    since = fields.AwareDateTime(allow_none=True)


class SourceHealthSchema(FlagsSchema):
    """One source, as an operator sees it."""

    name = fields.String()
    type = fields.String()
    status = fields.String(
        metadata={
            "description": "of the active run, else of the last one; never_run before it, gone after a 410, set_aside"
        }
    )
    last_run_at = fields.AwareDateTime(allow_none=True)
    last_success_at = fields.AwareDateTime(allow_none=True)
    checkpoint_value = fields.String(allow_none=True)
    breaker = fields.String(
        allow_none=True, metadata={"description": "closed, open or half_open; null for files, or without the broker"}
    )
    next_run_at = fields.AwareDateTime(allow_none=True)
    not_before = fields.AwareDateTime(allow_none=True, metadata={"description": "slots before this are left out"})
    not_before_reason = fields.String(
        allow_none=True,
        metadata={
            "description": "fresh or asked: by the server's word; set_aside: worker processes died of the source"
        },
    )
    gone_reason = fields.String(
        allow_none=True, metadata={"description": "why it is no longer polled; a run by hand that succeeds ends this"}
    )


class HealthStatus(StrEnum):
    """How the service is: unhealthy is only that it has no database."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class HealthSchema(Schema):
    """The state of the service."""

    status = fields.String(validate=validate.OneOf([str(status) for status in HealthStatus]))
    reasons = fields.List(fields.Nested(ReasonSchema), metadata={"description": "why it is not healthy"})
    database_connected = fields.Boolean()
    broker_connected = fields.Boolean()
    workers = fields.Integer()
    scheduler_seen_at = fields.AwareDateTime(
        allow_none=True, metadata={"description": "when a beat was seen last, within a day"}
    )
    total_sources = fields.Integer(metadata={"description": "all that are declared"})
    successful_sources = fields.Integer(metadata={"description": "enabled, and the last run was a success"})
    partial_sources = fields.Integer(metadata={"description": "enabled, and the last run was partial"})
    failed_sources = fields.Integer()
    sources = fields.List(fields.Nested(SourceHealthSchema))


class ProbeSchema(Schema):
    """A probe's answer."""

    status = fields.String()
