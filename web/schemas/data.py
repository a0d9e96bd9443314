"""Items, and the ways to ask for them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from marshmallow import Schema, ValidationError, fields, validate
from webargs.fields import DelimitedList

from db.queries.exports import EXPORTED, Format
from db.queries.item_paths import SORTABLE
from etl.declare.source import SOURCE_TYPES
from etl.item import FIELDS, Kind
from web.schemas.text import Moment, Text

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PAGE_SIZE = 1000


def _differ(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValidationError("A column is named twice.")


_SHOWN_AS: dict[Kind, Callable[[], fields.Field[Any]]] = {
    **dict.fromkeys((Kind.TEXT, Kind.ADDRESS), partial(fields.String, allow_none=True)),
    Kind.NUMBER: partial(fields.Decimal, allow_none=True),
    Kind.TAGS: partial(fields.List, fields.String(), allow_none=True),
    Kind.TIME: partial(fields.AwareDateTime, allow_none=True),
}
_Content = Schema.from_dict({field.name: _SHOWN_AS[field.kind]() for field in FIELDS}, name="Content")


class ItemSchema(_Content):  # type: ignore[misc, valid-type]
    """One thing, in the shape that all sources share."""

    id = fields.Integer()
    source_type = fields.String()
    source_name = fields.String()
    external_id = fields.String()
    metadata = fields.Raw(metadata={"type": "object", "description": "what the mapping did not use"})
    status = fields.String()
    created_at = fields.AwareDateTime()
    updated_at = fields.AwareDateTime()


class ChangesQuerySchema(Schema):
    """Where to go on, and how much to get."""

    cursor = Text(metadata={"description": "next_cursor of the answer before; without one, all from the beginning"})
    limit = fields.Integer(load_default=500, validate=validate.Range(1, MAX_PAGE_SIZE))


class ChangedItemSchema(ItemSchema):
    """An item as it is since it changed; a deleted one has the time of that."""

    deleted_at = fields.AwareDateTime(allow_none=True)


class ChangesSchema(Schema):
    """Changes, the oldest first."""

    changes = fields.List(fields.Nested(ChangedItemSchema))
    next_cursor = fields.String(metadata={"description": "to be kept with what was read, also of an empty answer"})
    has_more = fields.Boolean()
    behind_seconds = fields.Float(
        metadata={"description": "how old the oldest change is that cannot be told yet; 0 when all have been"}
    )


class PaginationSchema(Schema):
    """Where a page stands. Numbered fields are null when a cursor was used."""

    total_items = fields.Integer()
    total_is_exact = fields.Boolean()
    total_pages = fields.Integer()
    current_page = fields.Integer(allow_none=True)
    page_size = fields.Integer()
    has_next = fields.Boolean()
    has_previous = fields.Boolean()
    next_cursor = fields.String(allow_none=True)


class FilterSchema(Schema):
    """Which items."""

    source_type = Text(validate=validate.OneOf(SOURCE_TYPES))
    source_name = Text()
    category = Text()
    status = Text(load_default="active", validate=validate.OneOf(("active", "deleted")))
    search = Text(
        validate=validate.Length(1, 500),
        metadata={"description": 'words in title and description; "phrases", or, -not'},
    )
    published_after = Moment()
    published_before = Moment()
    updated_since = Moment()


class DataQuerySchema(FilterSchema):
    """Filters, order and page."""

    page = fields.Integer(validate=validate.Range(min=1))
    page_size = fields.Integer(load_default=50, validate=validate.Range(1, MAX_PAGE_SIZE))
    cursor = Text(metadata={"description": "next_cursor of the page before"})
    sort_by = Text(load_default="created_at", validate=validate.OneOf(SORTABLE))
    sort_order = Text(load_default="desc", validate=validate.OneOf(("asc", "desc")))


class ExportQuerySchema(FilterSchema):
    """Filters, columns and form."""

    format = Text(load_default="ndjson", validate=validate.OneOf(tuple(Format)))
    columns = DelimitedList(
        Text(validate=validate.OneOf(EXPORTED)),
        validate=validate.And(validate.Length(1, len(EXPORTED)), _differ),
        metadata={"description": "which columns, in which order; all without"},
    )


class ExportSchema(Schema):
    """How far an export is. `sha256` is that of its text, unpacked, less the last line of ndjson."""

    export_id = fields.UUID()
    format = fields.String(validate=validate.OneOf(tuple(Format)))
    state = fields.String(validate=validate.OneOf(("running", "complete", "broken")))
    items = fields.Integer()
    sha256 = fields.String(allow_none=True)
    started_at = fields.AwareDateTime()
    seen_at = fields.AwareDateTime()


class DataSchema(Schema):
    """A page of items."""

    items = fields.List(fields.Nested(ItemSchema))
    pagination = fields.Nested(PaginationSchema)
    filters_applied = fields.Dict()


class RecordSchema(Schema):
    """A stored record."""

    raw_data_id = fields.Integer()
    ingested_at = fields.AwareDateTime()
    payload = fields.Raw(allow_none=True, metadata={"description": "as the source gave it; null once it is removed"})


class MadeBySchema(Schema):
    """The mapping by which an item was made."""

    mapping_version = fields.Integer()
    made_at = fields.AwareDateTime(allow_none=True)
    made_by = fields.String(allow_none=True)
    document = fields.Dict(
        allow_none=True, metadata={"description": "what the source said of its mapping and of what it expects"}
    )


class EarlierSchema(RecordSchema):
    """A record that an item came from before."""

    run_id = fields.UUID(metadata={"description": "the run that stored it"})


class RequestSchema(Schema):
    """An HTTP request of a run, without secrets."""

    at = fields.AwareDateTime()
    method = fields.String()
    url = fields.String()
    status = fields.Integer(allow_none=True)
    bytes = fields.Integer()
    seconds = fields.Float()
    attempt = fields.Integer(metadata={"description": "1 for the first try"})
    error = fields.String(allow_none=True)


class ErasureSchema(Schema):
    """That a record is erased."""

    reason = fields.String()
    asked_at = fields.AwareDateTime()
    done_at = fields.AwareDateTime(
        allow_none=True, metadata={"description": "null until its source's stored records were looked through"}
    )


class ErasureRequestSchema(Schema):
    """Why a record is to be erased."""

    reason = Text(required=True, validate=validate.Length(min=1, max=500))


class ErasedSchema(Schema):
    """That a record is going to be erased."""

    item_id = fields.Integer()
    asked_at = fields.AwareDateTime()


class LineageSchema(Schema):
    """Where an item comes from."""

    item = fields.Nested(ItemSchema)
    record = fields.Nested(RecordSchema)
    fetched_by = fields.UUID(allow_none=True, metadata={"description": "the run that stored the record"})
    written_by = fields.UUID(metadata={"description": "the run that wrote the item last; another one after a replay"})
    requests = fields.List(
        fields.Nested(RequestSchema),
        metadata={"description": "those whose answers it was stored with: one, or several small pages; at most 20"},
    )
    mapping = fields.Nested(MadeBySchema)
    earlier = fields.List(
        fields.Nested(EarlierSchema),
        metadata={"description": "at most 20, newest first; a payload over 64 KiB is left out"},
    )
    erasure = fields.Nested(ErasureSchema, allow_none=True)
