"""What a record becomes: its identity, its item, or a reject that names field and rule."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from etl import payload
from etl.records import BadRecord, Mapped, RawRecord, Reject, StagedItem, StoredRecord
from testkit.factories import csv_mapper
from testkit.reading import take_all


def parts(mapped: Mapped) -> tuple[list[StagedItem], list[Reject]]:
    return mapped.staged, mapped.rejects


def stored(record: dict[str, Any], key: str | None = "1") -> StoredRecord:
    return StoredRecord(1, "2026-01-01T00:00:00+00:00", key, b"h", payload.encode(record).decode())


def test_the_usual_names_are_recognised() -> None:
    record = {"item_id": 7, "product_name": "x", "summary": "s", "cost": "2", "qty": "3", "date": "2026-01-01"}
    record |= {"keywords": "a,b", "link": "http://x", "thumbnail": "http://y", "colour": "red"}
    (staged,), rejects = parts(csv_mapper().normalize([stored(record)]))
    item = staged.item
    assert not rejects
    assert (item.title, item.description, item.amount, item.quantity) == ("x", "s", Decimal(2), Decimal(3))
    assert (item.tags, item.url, item.image_url) == (["a", "b"], "http://x", "http://y")
    assert item.metadata == {"colour": "red"}


def test_an_exact_key_wins_over_a_path() -> None:
    record = {"a.b": "key", "a": {"b": "path", "c": 1}, "id": 1}
    (staged,), _ = parts(csv_mapper(map={"title": "a.b"}).normalize([stored(record)]))
    assert staged.item.title == "key"
    del record["a.b"]
    (staged,), _ = parts(csv_mapper(map={"title": "a.b"}).normalize([stored(record)]))
    assert staged.item.title == "path"
    assert staged.item.metadata == {"a": {"c": 1}, "id": 1}


def test_a_value_that_does_not_fit_names_field_rule_and_value() -> None:
    staged, (reject,) = parts(
        csv_mapper().normalize([stored({"id": 1, "price": "dear"}), stored({"id": 2, "price": "1"})])
    )
    assert len(staged) == 1
    assert [(fault.field, fault.rule, fault.value) for fault in reject.faults] == [("amount", "type", "dear")]


def test_all_that_is_wrong_with_a_record_is_said() -> None:
    record = {"name": ["x"], "price": "dear", "stock": "1,5", "date": "soon"}
    _, (reject,) = parts(csv_mapper().normalize([stored(record, key=None)]))
    assert [(fault.field, fault.rule) for fault in reject.faults] == [
        ("external_id", "required"),
        ("title", "type"),
        ("amount", "type"),
        ("quantity", "type"),
        ("published_at", "type"),
    ]


@pytest.mark.parametrize(
    ("record", "source"),
    [
        ({"name": {}}, {"identity": ["lower(name)"]}),
        ({"name": "x\x00"}, {"where": "hash(name) != 'x'"}),
    ],
)
def test_a_path_that_does_not_fit_a_record_costs_that_record(record: dict[str, Any], source: dict[str, Any]) -> None:
    good, bad, skipped = csv_mapper(**source).take(iter([record]))
    assert (len(good) + len(bad), skipped) == (1, 0)
    assert bad or good[0].external_id is None


def test_a_number_too_long_to_be_written_is_rejected_by_name() -> None:
    _, (reject,) = parts(csv_mapper(map={"quantity": "to_number(qty)"}).normalize([stored({"qty": "1e100000"})]))
    assert reject.faults[0].field == "quantity"


@pytest.mark.parametrize(
    ("record", "source", "rule", "message"),
    [
        ({"id": "x" * 1001}, {}, "type", "external_id: longer than 1000 bytes"),
        ({"id": ["x"]}, {}, "type", "external_id: expected text, found a list"),
        ({"id": ""}, {}, "required", "the record has no id at `id` or `item_id` or `row_id` or `guid`"),
        ({"sku": ""}, {"map": {"external_id": "sku"}}, "required", "the record has no id at `sku`"),
        ({"a": "1", "b": ""}, {"identity": ["a", "b"]}, "required", "the record has no b, of its `identity`"),
    ],
)
def test_what_is_wrong_with_an_id_is_said(
    record: dict[str, Any], source: dict[str, Any], rule: str, message: str
) -> None:
    _, (reject,) = parts(csv_mapper(**source).normalize([stored(record, key=None)]))
    assert (reject.faults[0].rule, reject.faults[0].message) == (rule, message)


def taken(record: dict[str, Any], **source: Any) -> RawRecord:
    (raw,), bad, _ = csv_mapper(**source).take(iter([record]))
    assert not bad
    return raw


def test_identities() -> None:
    assert taken({"id": " 5 "}).external_id == "5"
    assert taken({"name": "x"}).external_id is None
    assert taken({"a": 1, "b": "x"}, identity=["a", "b"]).external_id == '[1,"x"]'
    assert taken({"a": 1}, identity=["a", "b"]).external_id is None
    assert taken({"a": 1}, identity="content").external_id != taken({"a": 2}, identity="content").external_id
    assert taken({"id": 1, "t": 1}, ignore=["t"]).content_hash == taken({"id": 1}).content_hash


def nested(levels: int) -> Any:
    return json.loads("[" * levels + "]" * levels)


@pytest.mark.parametrize(
    ("odd", "rule"),
    [
        ({"id": "a\0b"}, "nul"),
        ({"id": 1, "n": Decimal("1E+5000")}, "number_range"),
        ({"id": 1, "n": 10**3000}, "number_range"),
        ({"id": 1, "t": "\ud800"}, "storable"),
        ({"id": 1, "deep": nested(64)}, "depth"),
    ],
)
def test_one_that_cannot_be_stored_is_alone_in_that(odd: dict[str, Any], rule: str) -> None:
    plain: list[dict[str, Any] | BadRecord] = [
        {"id": number, "list": nested(63), "e": "SIZE-4", "long": "x" * number * 100} for number in range(50)
    ]
    cut = BadRecord(b"x", "", "too_long", "cut")
    good, bad = take_all(csv_mapper(), [*plain, odd, cut, {}, *plain])
    assert [r.rule for r in bad] == [rule, "too_long"]
    assert good[:50] == good[51:] == [taken(record) for record in plain if isinstance(record, dict)]
    good, bad = take_all(csv_mapper(), [odd])
    assert (good, bad[0].rule) == ([], rule)


def test_large_records_are_taken_one_by_one() -> None:
    records = iter([{"id": number, "t": "x" * 100_000} for number in range(10)])
    assert len(csv_mapper().take(records)[0]) == 1
    assert len(list(records)) == 9


@pytest.mark.parametrize("count", [1, 3])
def test_a_record_that_is_too_large_is_bad_and_its_neighbours_are_not(count: int) -> None:
    large = {"id": "large", "text": "x" * 2000}
    found = [{"id": "1"}, *[large] * count, {"id": "2"}, {"id": "\ud800"}, {"id": "3", "text": "x" * 900}]
    good, bad = take_all(csv_mapper(1000), found)
    assert [each.external_id for each in good] == ["1", "2", "3"]
    assert [each.rule for each in bad] == ["too_large"] * count + ["storable"]
    size = len(payload.encode(large))
    assert bad[0].message == f"the record has {size} bytes, more than MAX_RECORD = 1000"
    assert len(bad[0].raw) == size


def test_a_record_of_any_depth_costs_itself_only() -> None:
    for depth in [*range(60, 70), *range(900, 1000, 3), 3000]:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        good, bad = take_all(csv_mapper(), [{"id": 1, "deep": value}, {"id": 2}])
        assert len(good) + len(bad) == 2
        assert good[-1].external_id == "2"
