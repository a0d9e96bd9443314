"""The ways to the rows of a page of items: along an index, or through the set of all that match.

Each order has an index over the active items, in which absent values stand at one end. A page is read in two ranges,
the present values and the absent ones, so that one index serves both directions with the absent last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args
from unicodedata import normalize

from etl.declare.source import SOURCE_TYPES
from etl.item import COLUMNS

if TYPE_CHECKING:
    from datetime import datetime
    from decimal import Decimal

# Titles are ordered by so many characters, and categories found by them: longer ones would not fit an index.
TITLE_LENGTH = 200
TITLE_KEY = f'left(title, {TITLE_LENGTH}) COLLATE "C"'
CATEGORY_KEY = f"left(category, {TITLE_LENGTH})"
# As good as no limit.
ENDLESS = 2**31
SortKey = Literal["created_at", "updated_at", "published_at", "title", "amount", "rating"]
SORTABLE: tuple[SortKey, ...] = get_args(SortKey)
# Their indexes are one for each type of source: of some types, such as feeds, no item has such a value.
BY_TYPE = ("amount", "rating")
SHOWN = ", ".join(("id", "source_type", "source_name", "external_id", *COLUMNS, "status", "created_at", "updated_at"))

_CONDITIONS = {
    "source_type": "source_type = :source_type",
    "source_name": "source_name = :source_name",
    "category": f"{CATEGORY_KEY} = :category",
    "published_after": "published_at >= :published_after",
    "published_before": "published_at < :published_before",
    "updated_since": "updated_at >= :updated_since",
}
# What a filter says of the column of an order.
_OF_COLUMN = {"published_at": ("published_after", "published_before"), "updated_at": ("updated_since",)}
# To go through the whole table is never meant.
_BY_INDEX = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; "
# With less memory a bitmap forgets which rows of a page it meant.
_GATHERING = "SET LOCAL enable_seqscan = off; SET LOCAL work_mem = '32MB'; "
_NEGATED = re.compile(r"(?:^|\s)-\S")


@dataclass(frozen=True)
class Filters:
    """Which items are wanted; None means any."""

    source_type: str | None = None
    source_name: str | None = None
    category: str | None = None
    status: str = "active"
    search: str | None = None
    published_after: datetime | None = None
    published_before: datetime | None = None
    updated_since: datetime | None = None

    @property
    def given(self) -> frozenset[str]:
        """The filters that leave items out of those that are active; a span of time is one."""
        names = {name for name, value in vars(self).items() if value is not None}
        if {"published_after", "published_before"} <= names:
            names.remove("published_before")
        return frozenset(names if self.status != "active" else names - {"status"})


@dataclass(frozen=True)
class Order:
    """The order of items; the id makes it total. Absent values come last, in both directions."""

    sort_by: SortKey = "created_at"
    descending: bool = True

    def __post_init__(self) -> None:
        # It becomes part of the statement.
        if self.sort_by not in SORTABLE:
            raise ValueError(f"items have no order by {self.sort_by!r}")

    @property
    def nullable(self) -> bool:
        """True when the column may be absent."""
        return self.sort_by not in {"created_at", "updated_at"}

    @property
    def key(self) -> str:
        """What is compared."""
        return TITLE_KEY if self.sort_by == "title" else self.sort_by

    @property
    def direction(self) -> str:
        """In SQL."""
        return "DESC" if self.descending else "ASC"

    def clause(self, key: str) -> str:
        """ORDER BY, where the key is called so."""
        return f"ORDER BY {key} {self.direction} NULLS LAST, id {self.direction}"


@dataclass(frozen=True)
class KeysetPosition:
    """The last item of a page: the next page starts after it."""

    value: str | datetime | Decimal | None
    item_id: int


@dataclass(frozen=True)
class Window:
    """Which of the items in order are wanted: so many, by offset or after a place."""

    size: int
    offset: int = 0
    after: KeysetPosition | None = None


@dataclass(frozen=True)
class ItemQuery:
    """A page of items that is asked for."""

    filters: Filters
    order: Order
    window: Window


@dataclass(frozen=True)
class Rows:
    """A query for the items of a page and one more, and its parameters.

    What precedes it, and one more value of the answer, which may use `page`, the number of rows that were found.
    """

    query: str
    values: dict[str, Any]
    before: str = ""
    aside: str = "NULL"


def is_direct(asked: ItemQuery) -> bool:
    """True when an index leads straight to the items of any page."""
    return has_index(asked) and not _residual(asked.filters, asked.order)


def has_index(asked: ItemQuery) -> bool:
    """True when there is an index of the order over the items of this status."""
    return asked.filters.status == "active" or asked.order.sort_by in {"created_at", "title"}


def along_index(asked: ItemQuery, most: int = ENDLESS) -> Rows:
    """Along the index of the order, past so many rows at most in each range.

    Where it holds rows that are not wanted, `aside` is true when it ended there before the page was full.
    """
    filters, order = asked.filters, asked.order
    ranges = [[*_before(filters, order), *one] for one in _ranges(filters, order, asked.window.after)]
    if residual := _residual(filters, order):
        return _picked_out(asked, [_in_order(asked, one, str(most)) for one in ranges], residual, most)
    parts = [f"(SELECT {SHOWN} FROM {_in_order(asked, one, ':size + 1 + :offset')} found)" for one in ranges]
    return Rows(_one_after_the_other(SHOWN, parts), _values(asked), _BY_INDEX)


def _in_order(asked: ItemQuery, fulfilled: list[str], limit: str) -> str:
    """The first of a range, merged where each type has an index of its own."""
    order, limited = _sorted(asked.order), f"LIMIT {limit}"
    is_merged = asked.order.sort_by in BY_TYPE and asked.filters.source_type is None
    parts = [
        f"(SELECT * FROM unified_items WHERE {' AND '.join([*one, *fulfilled])} {order} {limited})"
        for one in ([[f"source_type = '{each}'"] for each in SOURCE_TYPES] if is_merged else [[]])
    ]
    return f"(SELECT * FROM ({' UNION ALL '.join(parts)}) typed {order} {limited})" if is_merged else parts[0]


def _picked_out(asked: ItemQuery, ranges: list[str], residual: list[str], most: int) -> Rows:
    """What fulfils the residual conditions; nothing of a range may follow on one that was left early."""
    ended = [f"(SELECT count(*) = {most} FROM {one} walked)" for one in ranges if most < ENDLESS]
    parts = [
        f"""(SELECT id FROM {one} walked
             WHERE {" AND ".join([*residual, *(f"NOT {early}" for early in ended[:number])])}
             LIMIT :size + 1 + :offset)"""
        for number, one in enumerate(ranges)
    ]
    early = f"CASE WHEN page <= :size THEN {' OR '.join(ended) or 'false'} ELSE false END"
    return Rows(_by_id(asked.order, _one_after_the_other("id", parts)), _values(asked), _BY_INDEX, early)


def through_set(asked: ItemQuery, most: int) -> Rows:
    """All that match, gathered and sorted; `aside` counts them, and of more than so many the page is empty."""
    filters, order = asked.filters, asked.order
    gathered = f"""
        {_GATHERING}
        WITH found AS MATERIALIZED (
            SELECT id, {order.key} AS place FROM unified_items WHERE {conditions(filters)} LIMIT {most + 1})
    """
    chosen = f"""
        SELECT id FROM found
        WHERE (SELECT count(*) FROM found) <= {most} AND {_after(order, "place", asked.window.after)}
        {order.clause("place")} LIMIT :size + 1 OFFSET :offset
    """
    return Rows(_by_id(order, chosen), _values(asked), gathered, "(SELECT count(*) FROM found)")


def in_full(asked: ItemQuery) -> Rows:
    """All that match, sorted, however many they are."""
    filters, order = asked.filters, asked.order
    chosen = f"""
        SELECT id FROM (SELECT id, {order.key} AS place FROM unified_items WHERE {conditions(filters)} OFFSET 0) found
        WHERE {_after(order, "place", asked.window.after)} {order.clause("place")} LIMIT :size + 1 OFFSET :offset
    """
    return Rows(_by_id(order, chosen), _values(asked), _GATHERING)


def is_covered(asked: ItemQuery) -> bool:
    """True when an index of one of the filters holds all that is asked for, and the key of the order."""
    return asked.order.sort_by != "title" and not asked.filters.given & {"category", "search"}


def is_intersected(filters: Filters) -> bool:
    """True when one index finds those that pass all filters, whatever passes one of them."""
    return filters.given <= {"source_name", "category", "search"}


def conditions(filters: Filters) -> str:
    """What all items have to fulfil."""
    return " AND ".join([_status(filters), *_wanted(filters).values()])


def _one_after_the_other(what: str, ranges: list[str]) -> str:
    return f"SELECT {what} FROM ({' UNION ALL '.join(ranges)}) ranges LIMIT :size + 1 OFFSET :offset"


def _by_id(order: Order, chosen: str) -> str:
    """The rows whose ids were chosen."""
    return f"""
        SELECT {SHOWN} FROM unified_items WHERE id = ANY (ARRAY({chosen})) {order.clause(order.key)}
    """


def _before(filters: Filters, order: Order) -> list[str]:
    """What the index of an order answers itself, before its order."""
    wanted = _wanted(filters)
    return [_status(filters), *(wanted[name] for name in wanted if name in _inside(filters, order))]


def _residual(filters: Filters, order: Order) -> list[str]:
    """What has to be looked up in each row along an index."""
    wanted = _wanted(filters)
    return [wanted[name] for name in wanted if name not in _inside(filters, order)]


def _inside(filters: Filters, order: Order) -> tuple[str, ...]:
    if order.sort_by in BY_TYPE:
        return ("source_type",)
    if order.sort_by == "created_at":
        return ("source_name",) if filters.status == "active" else ()
    return _OF_COLUMN.get(order.sort_by, ())


def _ranges(filters: Filters, order: Order, after: KeysetPosition | None) -> list[list[str]]:
    """What the present values fulfil, and the absent ones, from a place on."""
    present, absent = [f"{order.key} IS NOT NULL"], [f"{order.key} IS NULL"]
    if after is not None and after.value is None:
        return [[*absent, f"id {_sign(order)} :place_id"]]
    if after is not None:
        present.append(f"({order.key}, id) {_sign(order)} (:place, :place_id)")
    is_bounded = any(getattr(filters, name) is not None for name in _OF_COLUMN.get(order.sort_by, ()))
    return [present, absent] if order.nullable and not is_bounded else [present]


def _after(order: Order, key: str, after: KeysetPosition | None) -> str:
    """The same as one condition."""
    if after is None:
        return "true"
    if after.value is None:
        return f"({key} IS NULL AND id {_sign(order)} :place_id)"
    beyond = f"({key}, id) {_sign(order)} (:place, :place_id)"
    return f"({beyond} OR {key} IS NULL)" if order.nullable else beyond


def _sign(order: Order) -> str:
    return "<" if order.descending else ">"


def _sorted(order: Order) -> str:
    return f"ORDER BY {order.key} {order.direction}, id {order.direction}"


def _status(filters: Filters) -> str:
    # Written out, so that PostgreSQL sees which of the indexes have these items.
    return "status = 'active'" if filters.status == "active" else "status = 'deleted'"


def _wanted(filters: Filters) -> dict[str, str]:
    """The conditions by filter, but for that of the status."""
    found = {name: one for name, one in _CONDITIONS.items() if getattr(filters, name) is not None}
    if filters.category is not None and len(filters.category) >= TITLE_LENGTH:
        found["category"] = f"{CATEGORY_KEY} = left(:category, {TITLE_LENGTH}) AND category = :category"
    if filters.search is not None:
        queries = [f"websearch_to_tsquery('simple', :search{number})" for number in range(len(_forms(filters.search)))]
        found["search"] = f"search @@ ({' || '.join(queries)})"
    return found


def filter_values(filters: Filters) -> dict[str, Any]:
    """The parameters of `conditions`."""
    values = {name: getattr(filters, name) for name in _CONDITIONS if getattr(filters, name) is not None}
    if filters.search is not None:
        values |= {f"search{number}": form for number, form in enumerate(_forms(filters.search))}
    return values


def _values(asked: ItemQuery) -> dict[str, Any]:
    window = asked.window
    values = filter_values(asked.filters) | {"size": window.size, "offset": window.offset}
    if window.after is not None:
        values |= {"place": window.after.value, "place_id": window.after.item_id}
    return values


def _forms(search: str) -> list[str]:
    """A search in the ways that Unicode can write it: an accent may be a part of its letter, or stand after it.

    What has to be absent must be so in the one form that is asked for: "not this or not that" is everything.
    """
    if _NEGATED.search(search):
        return [search]
    return list(dict.fromkeys((search, normalize("NFC", search), normalize("NFD", search))))
