"""Pages as batches: how large they are, and from where each goes on."""

from __future__ import annotations

from typing import Any

import pytest

from etl.errors import FormatError
from etl.extract.batching import MAX_BYTES, Batcher
from etl.records import BadRecord, Cursor, Page, Position, RawBatch
from testkit.factories import csv_mapper


class Here(Cursor, frozen=True):
    at: int = 0


def pages(*sizes: int) -> list[Page]:
    numbers = iter(range(1000))
    last = len(sizes) - 1
    return [
        Page(Here(n), [{"id": next(numbers)} for _ in range(size)], None if n == last else Here(n + 1), f"v{n}")
        for n, size in enumerate(sizes)
    ]


def ids(batches: list[Any]) -> list[list[str | None]]:
    return [[record.external_id for record in batch.records] for batch in batches]


def test_small_pages_share_a_batch_and_large_ones_fill_several() -> None:
    batches = list(Batcher(csv_mapper(), 3).batches(pages(2, 2, 5), Position()))
    assert ids(batches) == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]]
    assert [batch.position.finished for batch in batches] == [False, False, True]
    assert (batches[0].position.cursor, batches[0].position.done) == ({"at": 1}, 1)


@pytest.mark.parametrize("stop", range(3))
def test_extraction_goes_on_after_any_batch(stop: int) -> None:
    all_pages = pages(2, 2, 5)
    first = list(Batcher(csv_mapper(), 2).batches(all_pages, Position()))
    resumed_at = first[stop].position
    reached = Here.of(resumed_at)
    assert reached
    rest = [page for page in all_pages if isinstance(page.cursor, Here) and page.cursor.at >= reached.at]
    again = list(Batcher(csv_mapper(), 2).batches(rest, resumed_at))
    assert ids(first[: stop + 1]) + ids(again) == ids(first)


def test_a_page_that_has_changed_is_read_from_its_start() -> None:
    resumed = Position({"at": 0}, 2, "another")
    assert ids(list(Batcher(csv_mapper(), 10).batches(pages(3), resumed))) == [["0", "1", "2"]]


def test_what_was_read_before_an_error_is_given_first() -> None:
    def breaking() -> Any:
        yield pages(2, 1)[0]
        raise FormatError("broken")

    found: list[RawBatch] = []
    with pytest.raises(FormatError):
        found.extend(Batcher(csv_mapper(), 10).batches(breaking(), Position()))
    given = Batcher(csv_mapper(), 10).batches(breaking(), Position())
    assert ids([next(given)]) == [["0", "1"]]


def test_bad_records_count_like_others() -> None:
    page = Page(Here(), [BadRecord(b"x", "", "csv", "m"), {"id": "a\x00"}, {"id": 1}], None)
    (batch,) = Batcher(csv_mapper(), 10).batches([page], Position())
    assert (batch.extracted, len(batch.rejected), len(batch.records)) == (3, 2, 1)


def test_a_batch_of_large_records_is_cut_by_its_bytes() -> None:
    large = "x" * (MAX_BYTES // 3)
    records: list[dict[str, Any] | BadRecord] = [{"id": number, "t": large} for number in range(4)]
    page = Page(Here(), [*records, BadRecord(b"y" * MAX_BYTES, "", "too_long", "cut"), *records], None)
    batches = list(Batcher(csv_mapper(), 100).batches([page], Position()))
    assert [(len(batch.records), len(batch.rejected)) for batch in batches] == [(3, 0), (1, 1), (3, 0), (1, 0)]
    assert [batch.position.done for batch in batches] == [3, 5, 8, 0]


def test_a_batch_holds_few_large_records() -> None:
    read = 0

    def large() -> Any:
        nonlocal read
        for number in range(100):
            read = number
            yield {"id": number, "text": "x" * (3 if number % 2 else 5) * 1024 * 1024}

    class Records:
        __iter__ = staticmethod(large)

        def __len__(self) -> int:
            return 100

    batches = Batcher(csv_mapper(), 500).batches([Page(Here(), Records(), None)], Position())
    batch = next(batches)
    assert read < 4
    assert sum(len(each.payload) for each in batch.records) < MAX_BYTES
    assert [each.rule for each in batch.rejected] == ["too_large"] * len(batch.rejected)
