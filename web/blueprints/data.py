"""Items."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import marshmallow as ma
import msgspec
from flask import Response, request
from flask.views import MethodView

from db.queries.items import Filters, Order, Place, count_items, list_items
from web.cursors import ItemCursor, pack, unpack
from web.errors import InvalidRequestError
from web.extensions import service
from web.requests import Resource
from web.schemas.data import DataQuerySchema, DataSchema

if TYPE_CHECKING:
    from sqlalchemy import Connection

blueprint = Resource("data", __name__, description="What was loaded.")

# Pages by number cost more the deeper they are; beyond this many rows a cursor is needed.
DEEPEST = 10_000
_FILTERS = (
    *("source_type", "source_name", "category", "status", "search"),
    *("published_after", "published_before", "updated_since"),
)


@blueprint.route("/data")
class Data(MethodView):
    """All items."""

    @blueprint.arguments(DataQuerySchema(), location="query", unknown=ma.RAISE)
    @blueprint.response(200, DataSchema)
    @blueprint.alt_response(304, description="Not changed since the answer whose ETag was sent as If-None-Match.")
    def get(self, query: dict[str, Any]) -> Response:
        """List items, by page number or, at any depth, by cursor."""
        filters = Filters(**{name: query[name] for name in _FILTERS if name in query})
        order, after = _order(query)
        page, size = _page(query)
        body = service().database.read(lambda connection: _read(connection, filters, order, after, page, size))
        response = Response(body, mimetype="application/json")
        response.set_etag(hashlib.sha256(body).hexdigest()[:32])
        return response.make_conditional(request) if request.if_none_match else response  # type: ignore[return-value]


def _read(
    connection: Connection, filters: Filters, order: Order, after: Place | None, page: int | None, size: int
) -> bytes:
    """The answer as JSON. The items in it are PostgreSQL's own text: nothing is gained by taking them apart here."""
    offset = (page - 1) * size if page else 0
    found = list_items(connection, filters, order, size=size, offset=offset, after=after)
    total = count_items(connection, filters)
    next_cursor = None
    if found.last_id is not None:
        next_cursor = pack(ItemCursor(order.sort_by, order.descending, found.last_id, found.last_value))
    answer = {
        "items": found.items,
        "pagination": {
            "total_items": total.count,
            "total_is_exact": total.exact,
            "total_pages": -(-total.count // size),
            "current_page": page,
            "page_size": size,
            "has_next": next_cursor is not None,
            "has_previous": bool(after) or (page or 1) > 1,
            "next_cursor": next_cursor,
        },
        "filters_applied": {name: value for name, value in vars(filters).items() if value is not None},
    }
    return msgspec.json.encode(answer)


def _order(query: dict[str, Any]) -> tuple[Order, Place | None]:
    """The order asked for; a cursor brings its own, and the place."""
    if "cursor" not in query:
        return Order(query["sort_by"], query["sort_order"] == "desc"), None
    if "page" in query:
        raise InvalidRequestError("query", "page", "give either `page` or `cursor`")
    cursor = unpack(query["cursor"], ItemCursor)
    try:
        place = Place(cursor.typed_value(), cursor.item_id)
    except ValueError as error:
        raise InvalidRequestError("query", "cursor", "not a cursor that this service gave") from error
    return Order(cursor.sort_by, cursor.descending), place


def _page(query: dict[str, Any]) -> tuple[int | None, int]:
    size = query["page_size"]
    if "cursor" in query:
        return None, size
    page = query.get("page", 1)
    if (page - 1) * size > DEEPEST:
        raise InvalidRequestError("query", "page", f"beyond {DEEPEST} rows; follow `next_cursor` instead")
    return page, size
