"""No source can crash a reader, keep it computing, or fill its memory."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from etl import payload
from etl.declare.paths import path
from etl.declare.source import ApiSource, parse
from etl.errors import FormatError, RefusedError
from etl.extract import document
from etl.extract.batching import MAX_BYTES, Batcher
from etl.extract.document import Document, open_document
from etl.extract.pager import MAX_LINK, next_link
from etl.extract.pieces import PIECE
from etl.files.lines import MAX_ROW_LINES
from etl.files.rows import MAX_COLUMNS, MAX_NAME, MAX_NAMES, Format, Rows, column_names, numbered, read_header
from etl.mapping.mapper import Mapper
from etl.records import BadRecord, Page, Position, RawRecord

pytestmark = pytest.mark.timeout(60)

# Enough records for a document to be read in pieces.
MANY = b'{"id":1,"text":"xxxxxxxxxxxxxxxxxxxxxxxxxxxx"},' * 30_000


def api(records: str = "@", **more: Any) -> ApiSource:
    source = parse({"name": "a", "type": "api", "request": {"url": "http://x/"}, "records": records, **more})
    assert isinstance(source, ApiSource)
    return source


def opened(body: bytes, records: str = "@", others: tuple[str, ...] = ()) -> Document:
    return open_document(io.BytesIO(body), len(body), api(records), others, lambda: None)


def taken(records: Any, mapper: Mapper | None = None) -> tuple[list[RawRecord], list[BadRecord]]:
    mapper, source = mapper or Mapper(api()), iter(records)
    good: list[RawRecord] = []
    bad: list[BadRecord] = []
    while any(few := mapper.take(source)):
        good += few[0]
        bad += few[1]
    return good, bad


# --- JSON


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (b"1" * 5000, "number_range"),
        (b"-" + b"1" * 5000, "number_range"),
        (b"1e99999999999999999999", "number_range"),
        (b"1e-99999999999999999999", "number_range"),
        (b'"\\ud800"', "storable"),
        (b'"\\u0000"', "nul"),
        (b'"%b"' % (b"x" * 20_000_000), "too_large"),
        (b'"%b"' % (b'\\"' * 10_000_000), "too_large"),
        (b"[%b1]" % (b"[]," * 2_000_000), "too_large"),
    ],
    ids=["integer", "negative", "exponent", "fraction", "half a pair", "NUL", "text", "escapes", "lists"],
)
def test_an_odd_value_in_a_large_answer_costs_its_record_only(value: bytes, rule: str) -> None:
    good, bad = taken(opened(b'[%b{"id":2,"odd":%b},{"id":3}]' % (MANY, value)).records)
    assert len(good) == 30_001
    assert [(each.rule, len(each.raw) <= 2000 or rule != "too_large") for each in bad] == [(rule, True)]
    assert good[-1].payload == b'{"id":3}'


def test_a_large_answer_is_read_as_a_small_one_wherever_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    value = {'a"]': ["\\", '\\"', "[{,", "\U0001f600", [], {}, [[1.5], {"b": None}]], "items": [1], "": 10**30}
    body = json.dumps({"x": [value], "data": {"n": value, "items": [value, None, value, "a,b", 1, []] * 3}, "next": 7})
    whole = opened(body.encode(), "data.items", ("next",))
    monkeypatch.setattr(document, "STREAM_OVER", 0)
    for size in range(2, 200):
        monkeypatch.setattr("etl.extract.pieces.PIECE", size)
        cut = opened(body.encode(), "data.items", ("next",))
        assert list(cut.records) == list(whole.records)
        assert (len(cut.records), cut.find("next")) == (18, 7)


@pytest.mark.parametrize(
    "items",
    [
        "[1,]",
        "[,1]",
        "[1,,2]",
        "[{} {}]",
        "[{}1]",
        "[{]}",
        '[{"a":1},',
        '["a]',
        "[01]",
        '["\x01"]',
        "[1}",
        "[nul]",
        "[",
    ],
)
def test_what_is_not_json_is_found_wherever_it_is_cut(items: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "STREAM_OVER", 0)
    for size in range(2, 20):
        monkeypatch.setattr("etl.extract.pieces.PIECE", size)
        for room in ("", " " * 20):
            with pytest.raises(FormatError, match="JSON"):
                opened('{{"items": {}}}'.format(items.replace(",", room + "," + room)).encode(), "items")


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b'{"%b":1,"items":[{"id":1}]}' % (b"k" * 20_000_000), "items"),
        (b'{"items":[{"id":1}],"other":"%b"}' % (b"k" * 20_000_000), "items"),
        (b'{"a":[[%b1]]}' % (b"[]," * 5_000_000), "a[0]"),
        (b'{"a":[["%b"]]}' % (b"x" * 20_000_000), "a[0]"),
    ],
    ids=["key", "text", "lists", "whole"],
)
def test_an_answer_that_memory_cannot_hold_is_refused_by_name(body: bytes, records: str) -> None:
    with pytest.raises((RefusedError, FormatError)) as caught:
        opened(body, records)
    assert caught.value.code == "too_large"


def test_what_an_answer_takes_in_memory_is_known_before() -> None:
    assert payload.weight(b'{"a":[1,2]}') < 1000
    assert payload.weight(b"[" + b"[]," * 1_000_000) > 100_000_000


@pytest.mark.parametrize(
    "body", [b'[{"a":"' + b"x" * PIECE * 40, b"[" + b'{"a":' * 3_000_000, b"[" + b"\\" * 3_000_000]
)
def test_a_large_answer_that_never_ends_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError):
        opened(body)


# --- Links


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", ["<", "<a>; ", "<a>;x", '<a>;b="', "<a>;x=rel ", " ;"])
def test_a_hostile_link_header_takes_no_time(text: str) -> None:
    assert next_link((text * MAX_LINK)[:MAX_LINK]) is None


def test_a_link_header_has_a_largest_length() -> None:
    with pytest.raises(FormatError, match=str(MAX_LINK)):
        next_link("<" * (MAX_LINK + 1))


# --- CSV


def rows(body: bytes) -> list[Any]:
    form = Format(",", '"', "utf-8", None)
    columns, offset = read_header(io.BytesIO(body), 0, form)
    chunks = Rows(io.BytesIO(body), len(body), form, columns, growing=False).chunks(offset, 0)
    return [record for chunk in chunks for record in chunk.records]


@pytest.mark.parametrize("ending", ["\r", "\n", "\r\n"])
def test_lines_may_end_in_a_carriage_return(ending: str) -> None:
    found = rows(ending.join(["id,text", *(f'{number},"a\rb"' for number in range(200_000))]).encode())
    assert len(found) == 200_000
    assert found[-1] == {"id": "199999", "text": "a\rb"}


def test_a_bad_row_among_carriage_returns_costs_only_itself() -> None:
    body = b"id,text\r" + b"1,a\r" * 100_000 + b'"x\r' + b"2,b\r" * 400_000
    found = rows(body)
    assert [each.raw for each in found if isinstance(each, BadRecord)] == [b'"x\r']
    assert len(found) == 500_001


@pytest.mark.timeout(30)
@pytest.mark.parametrize("line", [b'a","b\n', b'a","b\r'], ids=["line feeds", "carriage returns"])
def test_quotes_that_never_close_take_time_in_proportion(line: bytes) -> None:
    found = rows(b"id,text\n" + line * 60_000)
    assert len(found) == 60_000
    assert {each.rule for each in found} == {"csv"}


@pytest.mark.parametrize("line", [b'"\n",', b"\0", b",", b'"', b"x"])
def test_a_row_without_end_is_bad_by_name(line: bytes) -> None:
    found = rows(b"id,text\n" + line * (2 * MAX_ROW_LINES if b"\n" in line else 3_000_000))
    assert {each.rule for each in found} <= {"csv", "columns"}


@pytest.mark.timeout(10)
def test_many_equal_column_names_take_no_time() -> None:
    names = column_names(["a"] * (MAX_COLUMNS // 2) + ["a_2"] * (MAX_COLUMNS // 2))
    assert len(set(names)) == MAX_COLUMNS
    assert names[:3] == ["a", "a_2", "a_3"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (["a", "b" * (MAX_NAME + 1)], f"column 2 is longer than {MAX_NAME} bytes"),
        (["\u00e4" * MAX_NAME], f"column 1 is longer than {MAX_NAME} bytes"),
        (["b" * MAX_NAME] * 257, f"more than {MAX_NAMES} bytes in all"),
        (["a"] * (MAX_COLUMNS + 1), f"{MAX_COLUMNS + 1} columns are more than {MAX_COLUMNS}"),
    ],
)
def test_names_that_would_fill_every_record_are_refused(fields: list[str], reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        column_names(fields)
    assert caught.value.code == "bad_header"


def test_columns_without_names_are_limited_too() -> None:
    with pytest.raises(FormatError, match="columns"):
        numbered(MAX_COLUMNS + 1)


def test_a_header_is_not_looked_for_without_end() -> None:
    with pytest.raises(FormatError) as caught:
        rows(b"\n" * 3_000_000 + b"id\n1\n")
    assert caught.value.code == "bad_header"


# --- Records


@pytest.mark.parametrize("count", [1, 3])
def test_a_record_that_is_too_large_is_bad_and_its_neighbours_are_not(count: int) -> None:
    large = {"id": "large", "text": "x" * 2000}
    found = [{"id": "1"}, *[large] * count, {"id": "2"}, {"id": "\ud800"}, {"id": "3", "text": "x" * 900}]
    good, bad = taken(found, Mapper(api(), 1000))
    assert [each.external_id for each in good] == ["1", "2", "3"]
    assert [each.rule for each in bad] == ["too_large"] * count + ["storable"]
    size = len(payload.encode(large))
    assert bad[0].message == f"the record has {size} bytes, more than MAX_RECORD = 1000"
    assert len(bad[0].raw) == size


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

    batches = Batcher(Mapper(api()), 500).batches([Page({}, Records(), None)], Position())
    batch = next(batches)
    assert read < 4
    assert sum(len(each.payload) for each in batch.records) < MAX_BYTES
    assert [each.rule for each in batch.rejected] == ["too_large"] * len(batch.rejected)


def test_a_record_of_any_depth_costs_itself_only() -> None:
    for depth in [*range(60, 70), *range(900, 1000, 3), 3000]:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        good, bad = taken([{"id": 1, "deep": value}, {"id": 2}])
        assert len(good) + len(bad) == 2
        assert good[-1].external_id == "2"


def test_a_path_that_recurses_too_deep_is_no_defect() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="recursion"):
        path("to_string(@)").search(deep)
