"""A JSON answer of any size: no value can crash its reader, keep it computing, or fill its memory."""

from __future__ import annotations

import io
import json

import pytest

from etl.errors import FormatError, RefusedError
from etl.extract import document
from etl.extract.document import Document, open_document
from etl.extract.pieces import PIECE
from testkit.factories import api_source, csv_mapper
from testkit.reading import take_all

pytestmark = pytest.mark.timeout(60)


# Enough records for a document to be read in pieces.
MANY = b'{"id":1,"text":"xxxxxxxxxxxxxxxxxxxxxxxxxxxx"},' * 30_000


def opened(body: bytes, records: str = "@", others: tuple[str, ...] = ()) -> Document:
    return open_document(io.BytesIO(body), len(body), api_source(records), others, lambda: None)


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
    good, bad = take_all(csv_mapper(), opened(b'[%b{"id":2,"odd":%b},{"id":3}]' % (MANY, value)).records)
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


@pytest.mark.parametrize(
    "body", [b'[{"a":"' + b"x" * PIECE * 40, b"[" + b'{"a":' * 3_000_000, b"[" + b"\\" * 3_000_000]
)
def test_a_large_answer_that_never_ends_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError):
        opened(body)
