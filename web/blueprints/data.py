"""Items."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import marshmallow as ma
import msgspec
from flask import Response, request
from flask.views import MethodView

from db.queries.items import (
    PAGE_BYTES,
    Filters,
    Order,
    Page,
    Place,
    count_items,
    is_quick,
    list_items,
    list_small_items,
)
from etl.errors import PageTooLargeError, TooSlowError
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


@dataclass(frozen=True)
class Question:
    """Which items, in which order, from where; `page` is the number asked for, None for the first and by cursor."""

    filters: Filters
    order: Order
    size: int
    page: int | None
    after: Place | None

    @property
    def place(self) -> dict[str, Any]:
        """Where the page lies, for a query."""
        return {"size": self.size, "offset": ((self.page or 1) - 1) * self.size, "after": self.after}


@blueprint.route("/data")
class Data(MethodView):
    """All items."""

    @blueprint.arguments(DataQuerySchema(), location="query", unknown=ma.RAISE)
    @blueprint.response(200, DataSchema)
    @blueprint.alt_response(304, description="Not changed since the answer whose ETag was sent as If-None-Match.")
    @blueprint.alt_response(
        503, description="The database is away, or needs too long for this (`too_slow`): narrow it."
    )
    def get(self, query: dict[str, Any]) -> Response:
        """List items, by page number or, at any depth, by cursor.

        A page of large items ends early (`has_next`); one asked for by its number is refused instead.
        """
        order, after = _order(query)
        page, size = _place(query)
        filters = Filters(**{name: query[name] for name in _FILTERS if name in query})
        body = _answer(Question(filters, order, size, page, after))
        response = Response(body, mimetype="application/json")
        response.set_etag(hashlib.sha256(body).hexdigest()[:32])
        return response.make_conditional(request) if request.if_none_match else response  # type: ignore[return-value]


def _answer(question: Question) -> bytes:
    """The answer as JSON."""
    try:
        return _small(question) or _in_turn(question)
    except TooSlowError as error:
        raise TooSlowError(f"{error.message}. To narrow the question: {_narrower(question)}") from error


def _small(question: Question) -> bytes | None:
    """The answer, if it is quick to find and not large."""
    if not is_quick(question.filters, question.order):
        return None
    return service().database.read(_read_small, question)


def _in_turn(question: Question) -> bytes:
    """The answer, when it is the turn of one that may be slow to find, or large."""
    with service().slow.enter():
        return service().database.read(_read, question)


def _narrower(question: Question) -> str:
    hints = ["ask for a smaller `page_size`"]
    if question.filters.source_name is None:
        hints.insert(0, "add `source_name`")
    if question.filters != Filters(source_name=question.filters.source_name):
        hints.append("use fewer filters")
    if question.order.sort_by != Order.sort_by:
        hints.append("keep the default order")
    return ", ".join(hints)


def _read_small(connection: Connection, question: Question) -> bytes | None:
    found = list_small_items(connection, question.filters, question.order, **question.place)
    return None if found is None else _body(connection, question, found)


def _read(connection: Connection, question: Question) -> bytes:
    found = list_items(connection, question.filters, question.order, **question.place)
    if found.cut and question.page is not None:
        raise _too_large(len(found.items))
    return _body(connection, question, found)


def _too_large(fitting: int) -> PageTooLargeError:
    message = f"a page holds {PAGE_BYTES >> 20} MiB, here {fitting} items; ask for fewer, or follow `next_cursor`"
    return PageTooLargeError(message, errors=[{"location": "query", "field": "page_size", "message": message}])


def _body(connection: Connection, question: Question, found: Page) -> bytes:
    """The answer as JSON. The items in it are PostgreSQL's own text: nothing is gained by taking them apart here."""
    total = count_items(connection, question.filters)
    order, by_cursor = question.order, question.after is not None
    next_cursor = None
    if found.last_id is not None:
        next_cursor = pack(ItemCursor(order.sort_by, order.descending, found.last_id, found.last_value))
    answer = {
        "items": found.items,
        "pagination": {
            "total_items": total.count,
            "total_is_exact": total.exact,
            "total_pages": -(-total.count // question.size),
            "current_page": None if by_cursor else question.page or 1,
            "page_size": question.size,
            "has_next": next_cursor is not None,
            "has_previous": by_cursor or (question.page or 1) > 1,
            "next_cursor": next_cursor,
        },
        "filters_applied": {name: value for name, value in vars(question.filters).items() if value is not None},
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


def _place(query: dict[str, Any]) -> tuple[int | None, int]:
    """The number of the page, if one was given, and its size."""
    page, size = query.get("page"), query["page_size"]
    if page is not None and (page - 1) * size > DEEPEST:
        raise InvalidRequestError("query", "page", f"beyond {DEEPEST} rows; follow `next_cursor` instead")
    return page, size
