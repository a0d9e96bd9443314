"""Pages of items, however they are found: the same items in the same order as a plain sort in Python gives."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from db.queries.item_paths import SORTABLE, Filters, ItemQuery, KeysetPosition, Order, Window
from db.queries.items import Effort, Page, RecentTotals, Total, find_items
from db.session import Database
from etl.errors import TooBroadError
from web.cursors import VALUE_TYPES

COUNT, SIZE = 400, 60
START = datetime(2026, 1, 1, tzinfo=UTC)
# Each of these leaves hardly anything to the ways before, so that the last ones are gone as well.
EFFORTS = {
    "as shipped": Effort(),
    "a walk": Effort(counted=-1, large=-1, longest=COUNT + 1, shortest=COUNT + 1),
    "short walks, then all": Effort(counted=-1, large=-1, longest=70, shortest=70),
    "short walks, then without end": Effort(counted=-1, large=-1, longest=70, shortest=70, covered=-1, uncovered=-1),
    "gathered after a walk": Effort(large=-1, longest=0, shortest=0),
}
FILTERS = {
    "source_type": "rss",
    "source_name": "big",
    "category": "a",
    "status": "deleted",
    "search": "apple",
    "published_after": START + timedelta(days=20),
    "published_before": START + timedelta(days=40),
    "updated_since": START + timedelta(days=30),
}


@dataclass(frozen=True)
class Item:
    """What a row holds, as far as it is asked for."""

    id: int
    source_type: str
    source_name: str
    status: str
    created_at: datetime
    updated_at: datetime
    category: str | None
    title: str | None
    amount: Decimal | None
    rating: Decimal | None
    published_at: datetime | None

    def passes(self, filters: Filters) -> bool:
        if self.status != filters.status:
            return False
        same = ("source_type", "source_name", "category")
        if any(getattr(filters, name) not in {None, getattr(self, name)} for name in same):
            return False
        if filters.search and filters.search not in (self.title or "").split():
            return False
        if filters.published_after and not (self.published_at and self.published_at >= filters.published_after):
            return False
        if filters.published_before and not (self.published_at and self.published_at < filters.published_before):
            return False
        return not filters.updated_since or self.updated_at >= filters.updated_since


def made() -> list[Item]:
    """Absent values, many equal ones, and a source whose values lie at one end of every order."""
    dice = random.Random(5)

    def some(value: Any) -> Any:
        return None if dice.random() < 0.33 else value

    items = []
    for number in range(1, COUNT + 1):
        is_big = number % 3 == 0
        at = START + timedelta(days=dice.randrange(3 if is_big else 60))
        title = f"{dice.choice('abcABCé')}{'x' * dice.choice([1, 230])} {dice.choice(['apple', 'pear'])} {number % 5}"
        items.append(
            Item(
                id=number,
                source_type=dice.choice(["csv", "rss"]) if is_big else "api",
                source_name="big" if is_big else f"small{number % 4}",
                status="deleted" if dice.random() < 0.2 else "active",
                created_at=START + timedelta(minutes=number // 9),
                updated_at=START + timedelta(days=dice.randrange(60)),
                category=some(dice.choice("aab")),
                title=some(title),
                amount=some(Decimal(dice.randrange(5) + (100 if is_big else 0)) / 7),
                rating=None if is_big else some(Decimal(dice.randrange(4))),
                published_at=some(at),
            )
        )
    return items


ITEMS = made()


@pytest.fixture
def stored(database: Database) -> Database:
    insert = text("""
        INSERT INTO unified_items (id, source_type, source_name, external_id, status, created_at, updated_at, category,
            title, amount, rating, published_at, raw_data_id, raw_ingested_at, run_id, content_hash, mapping_version)
        OVERRIDING SYSTEM VALUE
        VALUES (:id, :source_type, :source_name, :id, :status, :created_at, :updated_at, :category, :title, :amount,
            :rating, :published_at, :id, now(), gen_random_uuid(), '', 1)
    """)
    with database.transaction() as connection:
        connection.execute(insert, [vars(item) for item in ITEMS])
        connection.execute(text("ANALYZE unified_items"))
        connection.execute(
            text("""
                INSERT INTO etl_checkpoints (source_name, source_type, total_items)
                SELECT source_name, min(source_type), count(*) FROM unified_items WHERE status = 'active' GROUP BY 1
            """)
        )
        connection.execute(
            text(
                "INSERT INTO etl_totals (source_type, items) SELECT source_type, count(*) FROM unified_items WHERE status = 'active' GROUP BY 1"
            )
        )
    return database


def chosen(seed: object = 0) -> Iterator[Filters]:
    """No filter, each, and one pair of eight."""
    pairs = list(itertools.combinations(FILTERS, 2))
    some = random.Random(str(seed)).sample(pairs, len(pairs) // 8)
    for names in [(), *((name,) for name in FILTERS), *some]:
        yield Filters(**{name: FILTERS[name] for name in names})  # type: ignore[arg-type]


def expected(filters: Filters, order: Order) -> list[int]:
    """The ids of all that match, in order: absent values last, titles by 200 characters, then by id."""

    def key(item: Item) -> tuple[Any, int]:
        value = getattr(item, order.sort_by)
        return (value[:200] if isinstance(value, str) else value, item.id)

    matching = [item for item in ITEMS if item.passes(filters)]
    present = sorted((item for item in matching if getattr(item, order.sort_by) is not None), key=key)
    absent = sorted((item for item in matching if getattr(item, order.sort_by) is None), key=lambda item: item.id)
    if order.descending:
        present.reverse()
        absent.reverse()
    return [item.id for item in present + absent]


def ids(page: Page) -> list[int]:
    return [msgspec.json.decode(item)["id"] for item in page.items]


def after(page: Page, order: Order) -> KeysetPosition | None:
    if page.last_id is None:
        return None
    value = page.last_value
    return KeysetPosition(None if value is None else VALUE_TYPES[order.sort_by](value), page.last_id)


def by_cursor(find: Callable[[Window], Page], order: Order) -> list[int]:
    """All pages, one after the other."""
    found, window = list[int](), Window(SIZE)
    while True:
        page = find(window)
        found += ids(page)
        place = after(page, order)
        if place is None:
            return found
        window = Window(SIZE, after=place)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort_by", SORTABLE)
@pytest.mark.parametrize("effort", EFFORTS)
def test_every_way_finds_the_same_in_every_order(stored: Database, effort: str, sort_by: Any, descending: bool) -> None:
    order = Order(sort_by, descending)
    for filters in chosen((effort, order)):
        wanted = expected(filters, order)
        find = finder(stored, filters, order, EFFORTS[effort])
        try:
            assert by_cursor(lambda window: find(window)[0], order) == wanted, filters  # noqa: B023
            for offset in (0, SIZE):
                page, total = find(Window(SIZE, offset))
                assert ids(page) == wanted[offset : offset + SIZE], filters
                assert not total.exact or total.count == len(wanted), filters
                assert total.exact or effort != "as shipped", filters
        except TooBroadError:
            assert effort not in {"as shipped", "gathered after a walk"}
            assert (filters.search and order != Order()) or len(filters.given) > 1


def finder(
    database: Database, filters: Filters, order: Order, effort: Effort
) -> Callable[[Window], tuple[Page, Total]]:
    """As the web asks: each statement by itself, so that what one forbids does not hold for the next."""
    return lambda window: database.read(find_items, ItemQuery(filters, order, window), RecentTotals(), effort)


def test_absent_values_do_not_follow_on_a_range_that_was_left_early(stored: Database) -> None:
    # Of the 400 items those of the big source have no rating; a walk that is over before it has seen all ratings must
    # not go on with those that have none.
    order = Order("rating", descending=True)
    filters = Filters(source_name="small1")
    short = Effort(counted=-1, large=-1, longest=20, shortest=20, covered=-1)
    page, _ = finder(stored, filters, order, short)(Window(SIZE))
    assert ids(page) == expected(filters, order)[:SIZE]


def test_what_is_too_broad_names_the_filters(stored: Database) -> None:
    nothing = Effort(counted=-1, large=-1, longest=1, shortest=1, covered=-1, uncovered=-1, uncovered_of_two=-1)
    order = Order("title")
    for filters in chosen():
        find = finder(stored, filters, order, nothing)
        is_broad = len(filters.given) > 1 or filters.search is not None
        if is_broad and len(expected(filters, order)) > 0:
            with pytest.raises(TooBroadError) as raised:
                find(Window(SIZE))
            assert {one["field"] for one in raised.value.facts["errors"]} == filters.given
        elif not is_broad:
            page, _ = find(Window(SIZE))
            assert ids(page) == expected(filters, order)[:SIZE]


def test_titles_of_100_kilobytes_are_paged(stored: Database) -> None:
    long = "\u9f8d" * 34_000
    with stored.transaction() as connection:
        connection.execute(text("UPDATE unified_items SET title = :title || id WHERE id % 4 = 0"), {"title": long})
    order = Order("title", descending=True)
    wanted = [item.id for item in reversed(ITEMS) if item.id % 4 == 0 and item.status == "active"]
    find = finder(stored, Filters(), order, Effort())
    page, _ = find(Window(10))
    assert ids(page) == wanted[:10]
    assert page.last_value == long[:200]
    page, _ = find(Window(10, after=after(page, order)))
    assert ids(page) == wanted[10:20]


def test_the_largest_values_fit_every_index(stored: Database) -> None:
    dice = random.Random(3)
    digits = "1." + "".join(dice.choices("123456789", k=1000)) + "e-300"
    title = "".join(chr(dice.randrange(0x20000, 0x2A000)) for _ in range(300))
    change = text("""
        UPDATE unified_items SET amount = CAST(:digits AS numeric), rating = CAST(:digits AS numeric), title = :title,
            source_name = :name || id, category = :title
    """)
    with stored.transaction() as connection:
        connection.execute(change, {"digits": digits, "title": title * 30, "name": "s" * 95})
    order = Order("amount", descending=False)
    wanted = sorted(item.id for item in ITEMS if item.status == "active")
    for filters in (Filters(), Filters(category=title * 30)):
        find = finder(stored, filters, order, Effort())
        assert by_cursor(lambda window: find(window)[0], order) == wanted  # noqa: B023
    page, _ = finder(stored, Filters(category=title), order, Effort())(Window(SIZE))
    assert ids(page) == []


def test_a_total_of_the_counters_that_is_too_low_is_not_called_exact(stored: Database) -> None:
    with stored.transaction() as connection:
        connection.execute(text("UPDATE etl_checkpoints SET total_items = 1"))
        connection.execute(text("UPDATE etl_totals SET items = 1"))
    counted = Effort(counted=20, longest=COUNT + 1, shortest=COUNT + 1)
    for filters in (Filters(), Filters(source_name="big"), Filters(source_name="big", source_type="csv")):
        _, total = finder(stored, filters, Order("title"), counted)(Window(SIZE // 10))
        assert not total.exact
        assert total.count > 20
