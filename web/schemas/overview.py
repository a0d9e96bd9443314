"""The first page, the service itself, and the hosts."""

from __future__ import annotations

from marshmallow import Schema, fields

from web.schemas.breakers import BreakerSchema
from web.schemas.stats import ReasonSchema


class SourceCountsSchema(Schema):
    """Sources by state; one may be in several."""

    total = fields.Integer()
    ok = fields.Integer()
    late = fields.Integer()
    failing = fields.Integer()
    in_part = fields.Integer(metadata={"description": "the last run was `partial`"})
    paused = fields.Integer()
    disabled = fields.Integer()
    set_aside = fields.Integer()
    gone = fields.Integer()


class RunCountsSchema(Schema):
    """Active runs."""

    queued = fields.Integer()
    running = fields.Integer()
    waiting = fields.Integer()
    oldest_sent_at = fields.AwareDateTime(allow_none=True, metadata={"description": "of those that nobody has taken"})


class HourSchema(Schema):
    """How the runs of an hour ended."""

    hour = fields.AwareDateTime()
    runs = fields.Dict(keys=fields.String(), values=fields.Integer(), metadata={"description": "by status"})


class AttentionSchema(ReasonSchema):
    """A cause that needs somebody's attention."""

    sources_total = fields.Integer(allow_none=True)
    sources = fields.List(fields.String(), metadata={"description": "at most 20"})
    error = fields.String(allow_none=True, metadata={"description": "the fingerprint of a group of failed runs"})


class OverviewSchema(Schema):
    """Is it well?"""

    status = fields.String(metadata={"description": "as `GET /health` says"})
    sources = fields.Nested(SourceCountsSchema)
    runs = fields.Nested(RunCountsSchema)
    open_rejects = fields.Integer()
    open_rejects_is_exact = fields.Boolean()
    open_breakers = fields.Integer(allow_none=True, metadata={"description": "null while the broker is away"})
    hours = fields.List(fields.Nested(HourSchema))
    attention = fields.List(fields.Nested(AttentionSchema))


class ProcessSchema(Schema):
    """A worker or a beat that was seen within a day."""

    name = fields.String()
    kind = fields.String()
    processes = fields.Integer()
    started_at = fields.AwareDateTime()
    seen_at = fields.AwareDateTime()
    alive = fields.Boolean()
    reader = fields.Integer(allow_none=True)
    protocol = fields.Integer(allow_none=True)


class QueueSchema(Schema):
    """A queue of messages."""

    name = fields.String()
    length = fields.Integer(allow_none=True, metadata={"description": "null while the broker is away"})
    oldest_at = fields.AwareDateTime(allow_none=True)


class TableSchema(Schema):
    """A table, its partitions and indexes counted in."""

    name = fields.String()
    bytes = fields.Integer()
    estimated_rows = fields.Integer()
    bytes_a_day = fields.Integer(allow_none=True, metadata={"description": "in the last week"})
    retention = fields.String(allow_none=True, metadata={"description": "null: it is kept, or holds what is now"})


class ConnectionsSchema(Schema):
    """Connections to the database of one kind of process."""

    name = fields.String()
    open = fields.Integer()
    active = fields.Integer(
        allow_none=True, metadata={"description": "Null where the web's role is not told: those of other roles."}
    )


class SystemSchema(Schema):
    """What the service consists of."""

    processes = fields.List(fields.Nested(ProcessSchema))
    queues = fields.List(fields.Nested(QueueSchema))
    connections = fields.List(fields.Nested(ConnectionsSchema))
    tables = fields.List(fields.Nested(TableSchema))
    database_bytes = fields.Integer()
    versions = fields.Dict(keys=fields.String(), values=fields.String())


class HostSchema(BreakerSchema):
    """A host: its breaker, its budget, and how quickly it answers."""

    sources_total = fields.Integer()
    sources = fields.List(fields.String(), metadata={"description": "at most 20"})
    interval = fields.Float(
        allow_none=True, metadata={"description": "seconds between two requests, by declared rates"}
    )
    next_at = fields.AwareDateTime(allow_none=True, metadata={"description": "when the next may go out"})
    requests = fields.Integer(metadata={"description": "of the newest 5,000 of all hosts"})
    p50_seconds = fields.Float(allow_none=True)
    p95_seconds = fields.Float(allow_none=True)
    asked_at = fields.AwareDateTime(allow_none=True)


class HostsSchema(Schema):
    """Hosts of enabled sources, those that are not called first; at most 1,000."""

    hosts = fields.List(fields.Nested(HostSchema))
    hosts_total = fields.Integer()
