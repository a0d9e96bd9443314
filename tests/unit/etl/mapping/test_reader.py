"""Which sources a new reader concerns."""

from __future__ import annotations

from typing import Any

import pytest

from etl.declare.source import parse
from etl.mapping import reader
from etl.mapping.reader import FEEDS, FILES, NUMBERS, TEXTS, TIMES, is_read_otherwise, reads

API = {"name": "shop", "type": "api", "request": {"url": "https://shop.test/"}}
CSV = {"name": "shop", "type": "csv", "file": "shop.csv"}
RSS = {"name": "shop", "type": "rss", "request": {"url": "https://shop.test/"}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({**API, "map": {"external_id": "id", "title": "name"}}, {TEXTS}),
        ({**API, "map": {"external_id": "id", "amount": "price"}}, {TEXTS, NUMBERS}),
        ({**CSV, "map": {"external_id": "id", "published_at": "at"}}, {TEXTS, TIMES, FILES}),
        # Without a map whatever has a usual name.
        (API, {TEXTS, NUMBERS, TIMES}),
        (RSS, {TEXTS, NUMBERS, TIMES, FEEDS}),
    ],
)
def test_what_a_source_has_to_be_read(document: dict[str, Any], expected: set[str]) -> None:
    assert reads(parse(document)) == expected


def test_only_what_changed_since_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CHANGES", {2: frozenset({TIMES}), 3: frozenset({FEEDS})})
    texts = parse({**API, "map": {"external_id": "id", "title": "name"}})
    times = parse({**API, "map": {"external_id": "id", "published_at": "at"}})
    assert [is_read_otherwise(source, 1) for source in (texts, times, parse(RSS))] == [False, True, True]
    assert [is_read_otherwise(source, 2) for source in (texts, times, parse(RSS))] == [False, False, True]
    assert not is_read_otherwise(parse(RSS), 3)


def test_the_newest_reader_has_its_changes() -> None:
    assert max(reader.CHANGES) == reader.READER
