"""Rows of CSV: no file can crash their reader, keep it computing, or fill its memory."""

from __future__ import annotations

import io
from typing import Any

import pytest

from etl.errors import FormatError
from etl.files.form import Form
from etl.files.header import MAX_COLUMNS, MAX_NAME, MAX_NAMES, column_names, numbered, read_header
from etl.files.lines import MAX_ROW_LINES
from etl.files.rows import Rows
from etl.records import BadRecord

pytestmark = pytest.mark.timeout(60)


def rows(body: bytes) -> list[Any]:
    form = Form(",", ragged="reject", drop_empty=False)
    header = read_header(io.BytesIO(body), 0, form)
    chunks = Rows(io.BytesIO(body), len(body), form, header.columns, growing=False).chunks(header.offset, 0)
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


def padded(body: bytes) -> list[Any]:
    form = Form(",")
    header = read_header(io.BytesIO(body), 0, form)
    chunks = Rows(io.BytesIO(body), len(body), form, header.columns, growing=False).chunks(header.offset, 0)
    return [record for chunk in chunks for record in chunk.records]


@pytest.mark.parametrize("count", [1, 3, 999, 1000, 1001, 1002, 1003, 2002, 5000])
def test_rows_without_their_last_field_are_rows_however_many_there_are(count: int) -> None:
    found = padded(b"a,b,c\n" + b"".join(b"%d,%s\n" % (number, b"x" * 100) for number in range(count)))
    assert [record["a"] for record in found] == [str(number) for number in range(count)]


def test_large_rows_that_lack_fields_are_not_all_held() -> None:
    body = b"a,b,c\n" + b"".join(b"%d,%s\n" % (number, b"x" * 500_000) for number in range(40))
    form = Form(",")
    chunks = list(Rows(io.BytesIO(body), len(body), form, ["a", "b", "c"], growing=False).chunks(6, 0))
    sizes = [sum(len(record["b"]) for record in chunk.records if isinstance(record, dict)) for chunk in chunks]
    assert max(sizes) < 3_000_000
    assert sum(len(chunk.records) for chunk in chunks) == 40


def test_a_broken_row_is_found_after_rows_of_several_lines() -> None:
    good = b"".join(b'%d,"line one\nline two",x%d\n' % (number, number) for number in range(4000))
    found = padded(b"id,text,x\n" + good + b"BROKEN,first\npart,zz\n9999,a,b\n")
    assert [one.raw for one in found if isinstance(one, BadRecord)] == [b"BROKEN,first\npart,zz\n"]
    assert len(found) == 4002
