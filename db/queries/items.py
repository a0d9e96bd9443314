"""Reading items: filters, orders, pages and keyset cursors."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, get_args
from unicodedata import normalize

import msgspec

from db.queries.stats import known_items
from db.statement import text
from etl.item import COLUMNS, FIELDS, Kind

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

# Up to here every filtered set is counted; beyond it a cheap source of truth is needed.
COUNTED = 10_000
# Totals beyond that are kept this long, by filters, in each process: seconds.
RECENT_SECONDS = 1.0
MAX_RECENT = 1000
SortKey = Literal["created_at", "updated_at", "published_at", "title", "amount", "rating"]
SORTABLE: tuple[SortKey, ...] = get_args(SortKey)

# What a page may hold, in bytes. The sizes are those of the columns: as JSON a page is somewhat more.
PAGE_BYTES = 8 * 1024 * 1024
# Up to here a page is made at once, unless it is known to be slow to find.
QUICK_BYTES = 1024 * 1024

SHOWN = ", ".join(("id", "source_type", "source_name", "external_id", *COLUMNS, "status", "created_at", "updated_at"))
_TEXTS = tuple(field.name for field in FIELDS if field.kind in {Kind.TEXT, Kind.ADDRESS})
_PACKED = (*(field.name for field in FIELDS if field.kind is Kind.TAGS), "metadata")
# Of a text PostgreSQL knows the length without reading it. Of the others it knows what they take, perhaps compressed.
_SIZE = " + ".join(
    [f"coalesce(octet_length({name}), 0)" for name in _TEXTS]
    + [
        f"coalesce(CASE WHEN pg_column_compression({name}) IS NULL THEN pg_column_size({name})"
        f" ELSE octet_length({name}::text) END, 0)"
        for name in _PACKED
    ]
)
# A cheap sign that an item is not large.
_SMALL = (
    f"greatest({', '.join(f'octet_length({name})' for name in _TEXTS)},"
    f" {', '.join(f'pg_column_size({name})' for name in _PACKED)}) <= :small"
    f" AND coalesce({', '.join(f'pg_column_compression({name})' for name in _PACKED)}) IS NULL"
)


@dataclass(frozen=True)
class Filters:
    """Which items are wanted; None means any."""

    source_type: str | None = None
    source_name: str | None = None
    category: str | None = None
    status: str | None = "active"
    search: str | None = None
    published_after: datetime | None = None
    published_before: datetime | None = None
    updated_since: datetime | None = None


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


@dataclass(frozen=True)
class KeysetPosition:
    """The last item of a page: the next page starts after it."""

    value: str | datetime | Decimal | None
    item_id: int


@dataclass(frozen=True)
class Page:
    """Items, each a JSON object; the last one's id if more follow, and its value in the order, as text.

    `cut` says that it ends early, because the next item would have made it too large.
    """

    items: list[msgspec.Raw]
    cut: bool = False
    last_id: int | None = None
    last_value: str | None = None


@dataclass(frozen=True)
class Total:
    """How many items match, and whether that is exact or an estimate."""

    count: int
    exact: bool


_json_items = msgspec.json.Decoder(list[msgspec.Raw])
_json_item = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)

_CONDITIONS = {
    "source_type": "source_type = :source_type",
    "source_name": "source_name = :source_name",
    "category": "category = :category",
    "status": "status = :status",
    "published_after": "published_at >= :published_after",
    "published_before": "published_at < :published_before",
    "updated_since": "updated_at >= :updated_since",
}


_NEGATED = re.compile(r"(?:^|\s)-\S")


def is_quick(filters: Filters, order: Order) -> bool:
    """True when an index leads straight to the items of any page."""
    return order.sort_by == "created_at" and replace(filters, source_name=None) == Filters()


def list_small_items(
    connection: Connection,
    filters: Filters,
    order: Order,
    *,
    size: int,
    offset: int = 0,
    after: KeysetPosition | None = None,
) -> Page | None:
    """As `list_items`, but nothing when one of the items is so large that the page may be, too.

    PostgreSQL makes the JSON, in one row: to fetch one for every item cost a tenth of a request.
    """
    rows, values = _rows(filters, order, size, offset, after)
    query = f"SELECT json_agg(item) FILTER (WHERE {_SMALL}), count(*) FROM ({rows}) item"
    found, count = connection.execute(text(query), values | {"small": QUICK_BYTES // (size + 1)}).one()
    items = _json_items.decode(found or "[]")
    return None if len(items) < count else _page(items, count, order, size)


def list_items(
    connection: Connection,
    filters: Filters,
    order: Order,
    *,
    size: int,
    offset: int = 0,
    after: KeysetPosition | None = None,
) -> Page:
    """A page of items: by offset, or after a place. It holds one item at least, and about PAGE_BYTES at most."""
    rows, values = _rows(filters, order, size, offset, after)
    query = f"""
        SELECT json_agg(item) FILTER (WHERE so_far <= :most OR so_far = bytes), count(*)
        FROM (
            SELECT found.*, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) AS so_far
            FROM (SELECT *, {_SIZE} AS bytes FROM ({rows}) rows) found
        ) sized
        CROSS JOIN LATERAL (SELECT {SHOWN}) item
    """
    found, count = connection.execute(text(query), values | {"most": PAGE_BYTES}).one()
    return _page(_json_items.decode(found or "[]"), count, order, size)


def _rows(
    filters: Filters, order: Order, size: int, offset: int, after: KeysetPosition | None
) -> tuple[str, dict[str, Any]]:
    """The query for the items of a page and one more, and its parameters."""
    where, values = _where(filters)
    if after is not None:
        where.append(_after(order, after))
        values |= {"place": after.value, "place_id": after.item_id}
    direction = "DESC" if order.descending else "ASC"
    nulls = " NULLS LAST" if order.nullable else ""
    query = f"""
        SELECT {SHOWN} FROM unified_items WHERE {" AND ".join(where)}
        ORDER BY {order.sort_by} {direction}{nulls}, id {direction} LIMIT :size + 1 OFFSET :offset
    """
    return query, values | {"size": size, "offset": offset}


def _page(items: list[msgspec.Raw], count: int, order: Order, size: int) -> Page:
    """The page of items that were made, of so many that were found."""
    shown = items[:size]
    if count <= len(shown):
        return Page(shown)
    last = _json_item.decode(shown[-1])
    value = last[order.sort_by]
    return Page(shown, len(shown) < size, last["id"], value if value is None else str(value))


class RecentTotals:
    """The large totals of one database, kept for a second: they are the same for every page of a list."""

    def __init__(self) -> None:
        self._kept: dict[Filters, tuple[Total, float]] = {}

    def count(self, connection: Connection, filters: Filters) -> Total:
        """As `count_items` does; beyond 10,000 the answer may be a second old."""
        known = self._kept.get(filters)
        if known is not None and time.monotonic() < known[1]:
            return known[0]
        total = count_items(connection, filters)
        if total.count > COUNTED:
            if len(self._kept) >= MAX_RECENT:
                self._kept.clear()
            self._kept[filters] = total, time.monotonic() + RECENT_SECONDS
        return total


def count_items(connection: Connection, filters: Filters) -> Total:
    """Exact up to 10,000; beyond that exact where counters know it, else the planner's estimate."""
    where, values = _where(filters)
    clause = " AND ".join(where)
    bounded = text(f"SELECT count(*) FROM (SELECT 1 FROM unified_items WHERE {clause} LIMIT {COUNTED + 1}) counted")
    count = connection.execute(bounded, values).scalar_one()
    if count <= COUNTED:
        return Total(count, exact=True)
    if filters.status in {"active", None} and set(values) <= {"status", "source_type", "source_name"}:
        return Total(known_items(connection, filters.source_type, filters.source_name), exact=True)
    return Total(max(_estimate(connection, filters), COUNTED + 1), exact=False)


def _estimate(connection: Connection, filters: Filters) -> int:
    """The planner's, which knows nothing of single sources; their share is known."""
    where, values = _where(replace(filters, source_name=None))
    query = text(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM unified_items WHERE {' AND '.join(where)}")
    rows = int(msgspec.json.decode(connection.execute(query, values).scalar_one())[0]["Plan"]["Plan Rows"])
    if filters.source_name is None:
        return rows
    everything = known_items(connection, None, None)
    return rows * known_items(connection, None, filters.source_name) // max(everything, 1)


def _where(filters: Filters) -> tuple[list[str], dict[str, Any]]:
    values = {name: value for name, value in vars(filters).items() if value is not None}
    where = [_CONDITIONS[name] for name in values if name != "search"]
    if filters.search is not None:
        forms = _forms(filters.search)
        queries = [f"websearch_to_tsquery('simple', :search{number})" for number in range(len(forms))]
        where.append(f"search @@ ({' || '.join(queries)})")
        del values["search"]
        values |= {f"search{number}": form for number, form in enumerate(forms)}
    return where or ["true"], values


def _forms(search: str) -> list[str]:
    """A search in the ways that Unicode can write it: an accent may be a part of its letter, or stand after it.

    What has to be absent must be so in the one form that is asked for: "not this or not that" is everything.
    """
    if _NEGATED.search(search):
        return [search]
    return list(dict.fromkeys((search, normalize("NFC", search), normalize("NFD", search))))


def _after(order: Order, place: KeysetPosition) -> str:
    """The keyset condition. Absent values sort last, so they come after every present one."""
    column, sign = order.sort_by, "<" if order.descending else ">"
    if place.value is None:
        return f"({column} IS NULL AND id {sign} :place_id)"
    beyond = f"({column}, id) {sign} (:place, :place_id)"
    return f"({beyond} OR {column} IS NULL)" if order.nullable else beyond
