"""Reading items: pages of JSON, by number or by cursor, and how many there are.

An order alone is walked along its index. With filters, a set of up to 10,000 items is gathered and sorted; a larger one
holds enough of them that a walk of limited length comes by a page, unless what is asked for lies at the far end. What
is left over is sorted in full, walked to its end, or too broad to be answered.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from db.queries.item_paths import (
    SHOWN,
    TITLE_LENGTH,
    Filters,
    ItemQuery,
    Order,
    Rows,
    Window,
    along_index,
    conditions,
    filter_values,
    has_index,
    in_full,
    is_covered,
    is_intersected,
    through_set,
)
from db.queries.item_sizes import PACKED, SIZE, TEXTS
from db.queries.stats import known_items
from db.statement import text
from etl.errors import TooBroadError

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Totals beyond what is counted are kept this long, by filters, in each process: seconds.
RECENT_SECONDS = 1.0
MAX_RECENT = 1000
# Sets up to here are counted, and gathered.
COUNTED = 10_000


@dataclass(frozen=True)
class Effort:
    """How many items are looked at in each way; at full size some 50 ms each, where the machine is idle.

    A set of more than `counted` is not gathered, nor tried to be if it is thought to be larger than `large`. A walk
    goes past `longest` in each range, or where to sort them all is quick, not `patience` times as far as it should
    have to. All are sorted up to `covered` where an index holds all that is needed; up to `uncovered` where each has
    to be looked at, with two filters up to `uncovered_of_two`.
    """

    counted: int = COUNTED
    large: int = 5 * COUNTED
    longest: int = 25_000
    shortest: int = 2_000
    patience: int = 20
    covered: int = 700_000
    uncovered: int = 400_000
    uncovered_of_two: int = 100_000


# What a page may hold, in bytes. The sizes are those of the columns: as JSON a page is somewhat more.
PAGE_BYTES = 8 * 1024 * 1024
_BROAD = (
    "too many items match for this order; add a filter that few items pass, such as `source_name` or a shorter span"
)
# Up to here a page is made at once, unless it is known to be slow to find.
QUICK_BYTES = 1024 * 1024

# A cheap sign that an item is not large.
_SMALL = (
    f"greatest({', '.join(f'octet_length({name})' for name in TEXTS)},"
    f" {', '.join(f'pg_column_size({name})' for name in PACKED)}) <= :small"
    f" AND coalesce({', '.join(f'pg_column_compression({name})' for name in PACKED)}) IS NULL"
)


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

    def at_least(self, count: int) -> Total:
        """The same, where so many were seen."""
        return self if self.count >= count else Total(count, exact=False)


_json_items = msgspec.json.Decoder(list[msgspec.Raw])
_json_item = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


def find_small_items(connection: Connection, asked: ItemQuery) -> Page | None:
    """A page that an index leads straight to (`is_direct`), or nothing when an item is so large that it may be, too.

    PostgreSQL makes the JSON, in one row: to fetch one for every item cost a tenth of a request.
    """
    rows = along_index(asked)
    query = f"{rows.before}SELECT json_agg(item) FILTER (WHERE {_SMALL}), count(*) FROM ({rows.query}) item"
    values = rows.values | {"small": QUICK_BYTES // (asked.window.size + 1)}
    found, count = connection.execute(text(query), values).one()
    items = _json_items.decode(found or "[]")
    return None if len(items) < count else _page(items, count, asked)


def find_items(
    connection: Connection, asked: ItemQuery, totals: RecentTotals, effort: Effort = Effort()
) -> tuple[Page, Total]:
    """A page of items, and how many there are. It holds one item at least, and about PAGE_BYTES at most.

    Raises:
        TooBroadError: too many match for what else is asked of them.
    """
    kept, gathered, is_near = totals.known(asked.filters), None, _is_near(connection, asked, effort)
    total = kept or _expect(connection, asked.filters)
    if kept is None and total.count <= effort.large and is_near:
        gathered = _gather(connection, asked, effort)
        if gathered.is_all:
            return gathered.page, Total(gathered.count, exact=True)
        total = total.at_least(gathered.count)
    page = _walk(connection, asked, total, effort)
    if page is None and not (is_near or asked.filters.search) and total.count <= effort.uncovered_of_two:
        page = _at_length(connection, asked, total, effort)
    elif page is None:
        # Nothing is refused by an estimate alone.
        gathered = gathered or _gather(connection, asked, effort)
        if gathered.is_all:
            return gathered.page, Total(gathered.count, exact=True)
        total = total.at_least(gathered.count)
        page = _at_length(connection, asked, total, effort)
    return page, _seen_whole(page, asked.window) or totals.keep(asked.filters, total)


def _seen_whole(page: Page, window: Window) -> Total | None:
    """The number of all, where the page is the last one of those by number."""
    if page.last_id is None and window.after is None and (page.items or not window.offset):
        return Total(window.offset + len(page.items), exact=True)
    return None


def _walk(connection: Connection, asked: ItemQuery, total: Total, effort: Effort) -> Page | None:
    """A page along the index of the order, None when there are too many others on the way."""
    if not has_index(asked):
        return None
    most = effort.longest
    if is_covered(asked):
        wanted, among = asked.window.size + 1 + asked.window.offset, _expect(connection, Filters()).count
        most = min(max(effort.patience * wanted * among // max(total.count, 1), effort.shortest), effort.longest)
    page, ended_early = _read(connection, along_index(asked, most), asked)
    return None if ended_early else page


@dataclass(frozen=True)
class _Gathered:
    """A page, empty unless all were gathered, and their number."""

    page: Page
    count: int
    is_all: bool


def _gather(connection: Connection, asked: ItemQuery, effort: Effort) -> _Gathered:
    page, count = _read(connection, through_set(asked, effort.counted), asked)
    return _Gathered(page, count, count <= effort.counted)


def _at_length(connection: Connection, asked: ItemQuery, total: Total, effort: Effort) -> Page:
    """A page that is neither near the start of its order nor one of a small set."""
    filters, is_one = asked.filters, len(asked.filters.given) < 2
    uncovered = effort.uncovered if is_one else effort.uncovered_of_two
    if filters.search is not None and asked.order != Order():
        raise _too_broad(filters)
    if (is_covered(asked) and _narrowest(connection, filters) <= effort.covered) or total.count <= uncovered:
        rows = in_full(asked)
    elif not is_one:
        raise _too_broad(filters)
    else:
        rows = along_index(asked) if has_index(asked) else in_full(asked)
    return _read(connection, rows, asked)[0]


def _is_near(connection: Connection, asked: ItemQuery, effort: Effort) -> bool:
    """True when to gather a small set does not lead through a large one, row by row."""
    filters = asked.filters
    if len(filters.given) < 2 or is_covered(asked) or is_intersected(filters):
        return True
    return _narrowest(connection, filters) <= effort.large


def _narrowest(connection: Connection, filters: Filters) -> int:
    """How many items the filter has that fewest pass."""
    nothing = Filters(status=filters.status)
    each = [replace(nothing, **{name: getattr(filters, name)}) for name in filters.given]
    return min((_expect(connection, one).count for one in each), default=0)


def _too_broad(filters: Filters) -> TooBroadError:
    named = [{"location": "query", "field": name, "message": _BROAD} for name in sorted(filters.given)]
    return TooBroadError(_BROAD, errors=named)


def _read(connection: Connection, rows: Rows, asked: ItemQuery) -> tuple[Page, Any]:
    """The page, and what the rows say aside."""
    query = f"""
        {rows.before}
        SELECT items, page, {rows.aside} FROM (
            SELECT json_agg(item) FILTER (WHERE so_far <= :most OR so_far = bytes) AS items, count(*) AS page
            FROM (
                SELECT found.*, sum(bytes) OVER (ROWS UNBOUNDED PRECEDING) AS so_far
                FROM (SELECT *, {SIZE} AS bytes FROM ({rows.query}) rows) found
            ) sized
            CROSS JOIN LATERAL (SELECT {SHOWN}) item
        ) answered
    """
    found, count, aside = connection.execute(text(query), rows.values | {"most": PAGE_BYTES}).one()
    return _page(_json_items.decode(found or "[]"), count, asked), aside


def _page(items: list[msgspec.Raw], count: int, asked: ItemQuery) -> Page:
    """The page of items that were made, of so many that were found."""
    shown = items[: asked.window.size]
    if count <= len(shown):
        return Page(shown)
    last = _json_item.decode(shown[-1])
    value = last[asked.order.sort_by]
    if isinstance(value, str):
        value = value[:TITLE_LENGTH]
    return Page(shown, len(shown) < asked.window.size, last["id"], value if value is None else str(value))


class RecentTotals:
    """The large totals of one database, kept for a second: they are the same for every page of a list."""

    def __init__(self) -> None:
        self._kept: dict[Filters, tuple[Total, float]] = {}

    def known(self, filters: Filters) -> Total | None:
        """A total that is kept."""
        kept = self._kept.get(filters)
        return kept[0] if kept is not None and time.monotonic() < kept[1] else None

    def keep(self, filters: Filters, total: Total) -> Total:
        """Keep a total, if it is large."""
        if total.count > COUNTED:
            if len(self._kept) >= MAX_RECENT:
                self._kept.clear()
            self._kept[filters] = total, time.monotonic() + RECENT_SECONDS
        return total

    def count(self, connection: Connection, filters: Filters) -> Total:
        """As `count_items` does; beyond 10,000 the answer may be a second old."""
        return self.known(filters) or self.keep(filters, count_items(connection, filters))


def count_items(connection: Connection, filters: Filters) -> Total:
    """Exact up to 10,000; beyond that exact where counters know it, else the planner's estimate."""
    bounded = (
        f"SELECT count(*) FROM (SELECT 1 FROM unified_items WHERE {conditions(filters)} LIMIT {COUNTED + 1}) counted"
    )
    count = connection.execute(text(bounded), filter_values(filters)).scalar_one()
    return Total(count, exact=True) if count <= COUNTED else _expect(connection, filters).at_least(count)


def _expect(connection: Connection, filters: Filters) -> Total:
    """A total that is thought to be large: by counters, else by the planner's estimate."""
    if filters.given <= {"source_type", "source_name"}:
        # Of a source whose type has changed, the counters do not know how many items have which.
        known = known_items(connection, filters.source_type, filters.source_name)
        return Total(known, exact=len(filters.given) < 2)
    return Total(_estimate(connection, filters), exact=False)


def _estimate(connection: Connection, filters: Filters) -> int:
    """The planner's, which knows nothing of single sources; their share is known."""
    others = replace(filters, source_name=None)
    query = text(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM unified_items WHERE {conditions(others)}")
    plan = connection.execute(query, filter_values(others)).scalar_one()
    rows = int(msgspec.json.decode(plan)[0]["Plan"]["Plan Rows"])
    if filters.source_name is None:
        return rows
    everything = known_items(connection, None, None)
    return rows * known_items(connection, None, filters.source_name) // max(everything, 1)
