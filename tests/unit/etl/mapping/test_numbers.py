"""Numbers are read right or refused. The table was written by hand before the reader, a third of it by others."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from etl.declare.source import parse
from etl.errors import ConfigError
from etl.mapping.mapper import Mapper
from etl.records import Mapped, Reject, StagedItem, StoredRecord

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "numbers.json").read_text(), parse_float=Decimal)


def parts(mapped: Mapped) -> tuple[list[StagedItem], list[Reject]]:
    return mapped.staged, mapped.rejects


def read(value: object, options: dict[str, Any]) -> Decimal | str | None:
    """What becomes of a value in a source with these options: the amount, or the message of its reject."""
    source = parse({"name": "a", "type": "csv", "file": "a.csv", "map": {"amount": "v"}, **options})
    raw, *_ = (mapper := Mapper(source)).take(iter([{"id": "1", "v": value}]))
    stored = StoredRecord(1, "2026-01-01", "1", raw[0].content_hash, raw[0].payload.decode())
    staged, rejects = parts(mapper.normalize([stored]))
    return rejects[0].faults[0].message if rejects else staged[0].item.amount


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['value']!r} {case['options'] or ''}")
def test_a_spelling(case: dict[str, Any]) -> None:
    found = read(case["value"], case["options"])
    if case["expect"] == "refused":
        assert isinstance(found, str)
    else:
        assert found == (None if case["expect"] is None else Decimal(case["expect"]))


def test_the_table_covers_what_it_should() -> None:
    readable = [case for case in CASES if case["expect"] not in {"refused", None}]
    assert len(CASES) >= 80
    assert len(readable) >= 65


@pytest.mark.parametrize(
    ("written", "declared"),
    [
        ("1.234,50", {"decimal": ",", "thousands": "."}),
        ("1,234.50", {"thousands": ","}),
        ("1'234.50", {"thousands": "'"}),
        ("1 234,50", {"decimal": ",", "thousands": " "}),
        ("1234,5", {"decimal": ","}),
        ("$ 5.00", {}),
    ],
)
def test_a_refusal_says_what_to_declare_and_that_is_read(written: str, declared: dict[str, str]) -> None:
    message = read(written, {})
    assert isinstance(message, str)
    shown = ", ".join(f'{key}: "{value}"' for key, value in {"decimal": ".", **declared}.items())
    assert "numbers: {" + shown.replace('"\'"', '"\'"') in message
    assert isinstance(read(written, {"numbers": declared}), Decimal)


@pytest.mark.parametrize(
    "numbers", [{"decimal": ",", "thousands": ","}, {"decimal": "5"}, {"thousands": "-"}, {"percent": "half"}]
)
def test_separators_that_contradict_are_refused(numbers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="numbers"):
        parse({"name": "a", "type": "csv", "file": "a.csv", "numbers": numbers})


def test_nulls_hold_for_every_field_but_not_for_the_rest() -> None:
    source = parse({"name": "a", "type": "csv", "file": "a.csv", "nulls": ["-"]})
    mapper = Mapper(source)
    raw, *_ = mapper.take(iter([{"id": "1", "title": "-", "date": "-", "tags": "-", "other": "-"}, {"id": "-"}]))
    assert [record.external_id for record in raw] == ["1", None]
    stored = StoredRecord(1, "2026-01-01", "1", raw[0].content_hash, raw[0].payload.decode())
    item = mapper.normalize([stored]).staged[0].item
    assert (item.title, item.published_at, item.tags, item.metadata) == (None, None, None, {"other": "-"})
