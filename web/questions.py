"""What is asked of the list of items: which ones, in which order, from where."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from db.queries.item_paths import Filters, ItemQuery, KeysetPosition, Order, Window
from etl.errors import UnknownSourceError
from web.cursors import ItemCursor, unpack
from web.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Pages by number cost more the deeper they are; beyond this many rows a cursor is needed.
DEEPEST = 10_000
_FILTERS = tuple(field.name for field in fields(Filters))


@dataclass(frozen=True)
class Question:
    """Which items, in which order, from where; `page` is the number asked for, None for the first and by cursor."""

    filters: Filters
    order: Order
    size: int
    page: int | None
    after: KeysetPosition | None

    @property
    def asked(self) -> ItemQuery:
        """The same for the database."""
        window = Window(self.size, ((self.page or 1) - 1) * self.size, self.after)
        return ItemQuery(self.filters, self.order, window)


def read_filters(query: dict[str, Any]) -> Filters:
    """The filters in the parameters of a request."""
    return Filters(**{name: query[name] for name in _FILTERS if name in query})


def read_question(query: dict[str, Any]) -> Question:
    """The question in the parameters of a request.

    Raises:
        InvalidRequestError: they are good each, but not together, or the cursor is not ours.
    """
    order, after = _order(query)
    page, size = _page(query)
    return Question(read_filters(query), order, size, page, after)


@contextmanager
def naming_a_source() -> Iterator[None]:
    """Where a source is a filter, an unknown one is a mistake in the question.

    Raises:
        InvalidRequestError: instead of UnknownSourceError.
    """
    try:
        yield
    except UnknownSourceError as error:
        raise InvalidRequestError("query", "source_name", error.message) from error


def _order(query: dict[str, Any]) -> tuple[Order, KeysetPosition | None]:
    """The order asked for; a cursor brings its own, and the place."""
    if "cursor" not in query:
        return Order(query["sort_by"], query["sort_order"] == "desc"), None
    if "page" in query:
        raise InvalidRequestError("query", "page", "give either `page` or `cursor`")
    cursor = unpack(query["cursor"], ItemCursor)
    try:
        place = KeysetPosition(cursor.typed_value(), cursor.item_id)
    except ValueError as error:
        raise InvalidRequestError("query", "cursor", "not a cursor that this service gave") from error
    return Order(cursor.sort_by, cursor.descending), place


def _page(query: dict[str, Any]) -> tuple[int | None, int]:
    """The number of the page, if one was given, and its size."""
    page, size = query.get("page"), query["page_size"]
    if page is not None and (page - 1) * size > DEEPEST:
        raise InvalidRequestError("query", "page", f"beyond {DEEPEST} rows; follow `next_cursor` instead")
    return page, size
