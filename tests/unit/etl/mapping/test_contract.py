"""Contracts: rules on the fields of items, and what becomes of records that break them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from etl import payload
from etl.declare.source import parse
from etl.errors import ConfigError, ExpectationError
from etl.mapping.mapper import Mapper
from etl.records import Mapped, StoredRecord

MAPPING = {
    "external_id": "id",
    "title": "title",
    "amount": "amount",
    "category": "category",
    "url": "url",
    "tags": "tags",
    "published_at": "at",
}


def judged(expect: dict[str, Any], record: dict[str, Any], **source: Any) -> Mapped:
    document = {"name": "a", "type": "csv", "file": "a.csv", "map": MAPPING, "expect": expect, **source}
    content = payload.encode({"id": "1", **record})
    stored = StoredRecord(1, "2026-01-01", str(record.get("id", "1")), payload.digest(content), content.decode())
    return Mapper(parse(document)).normalize([stored])


def broken(expect: dict[str, Any], record: dict[str, Any]) -> list[tuple[str, str]]:
    mapped = judged(expect, record)
    return [(fault.field, fault.rule) for reject in mapped.rejects for fault in reject.faults]


@pytest.mark.parametrize(
    ("field", "rules", "good", "bad"),
    [
        ("title", {"required": True}, {"title": "x"}, {"title": ""}),
        ("title", {"max_length": 3}, {"title": "äöü"}, {"title": "äöüß"}),
        ("title", {"pattern": "^[A-Z]+$"}, {"title": "AB"}, {"title": "ABc"}),
        ("title", {"enum": ["a", "b"]}, {"title": "b"}, {"title": "c"}),
        ("amount", {"min": 0}, {"amount": "0"}, {"amount": "-0.01"}),
        ("amount", {"max": 0.1}, {"amount": "0.1"}, {"amount": "0.10000000000000000001"}),
        ("amount", {"min": 1, "max": 2}, {"amount": 2}, {"amount": 3}),
        ("amount", {"enum": [1, 2.5]}, {"amount": "2.50"}, {"amount": 2}),
        ("tags", {"enum": ["a", "b"]}, {"tags": "a,b"}, {"tags": "a,c"}),
        ("tags", {"max_length": 1}, {"tags": "a"}, {"tags": "a,b"}),
        ("published_at", {"min": "2000-01-01"}, {"at": "2000-01-01T00:00:00Z"}, {"at": "1999-12-31T23:59:59Z"}),
        ("published_at", {"max": "2000-01-01"}, {"at": "1999-12-31"}, {"at": "2000-01-02"}),
        ("external_id", {"pattern": "^[0-9]+$"}, {"id": "7"}, {"id": "x"}),
        ("metadata.stock", {"type": "number"}, {"stock": 1.5}, {"stock": "1.5"}),
        ("metadata.stock", {"type": "number"}, {"stock": 0}, {"stock": True}),
        ("metadata.stock", {"type": "text"}, {"stock": "a"}, {"stock": ["a"]}),
        ("metadata.stock", {"type": "list"}, {"stock": []}, {"stock": {}}),
        ("metadata.stock", {"min": 1}, {"stock": 1}, {"stock": "many"}),
        ("metadata.stock", {"enum": [10, "x", True]}, {"stock": 10.0}, {"stock": "10"}),
        ("metadata.stock", {"enum": [True]}, {"stock": True}, {"stock": "True"}),
        ("metadata.stock", {"required": True}, {"stock": 0}, {}),
        ("metadata.stock", {"pattern": "a"}, {"stock": "cat"}, {"stock": 1}),
        ("metadata.stock", {"max_length": 2}, {"stock": [1, 2]}, {"stock": "abc"}),
    ],
)
def test_each_rule(field: str, rules: dict[str, Any], good: dict[str, Any], bad: dict[str, Any]) -> None:
    assert broken({field: rules}, good) == []
    rule = "max" if set(rules) == {"min", "max"} else next(iter(rules))
    assert broken({field: rules}, bad) == [(field, rule)]


def test_without_a_value_only_required_is_broken() -> None:
    rules = {"min": 1, "max": 2, "enum": [1]}
    assert broken({"amount": rules}, {}) == []
    assert broken({"amount": {**rules, "required": True}}, {"amount": None}) == [("amount", "required")]


def test_all_that_is_wrong_is_told_once() -> None:
    expect = {"title": {"required": True}, "amount": {"min": 0}, "category": {"max_length": 1, "pattern": "^x"}}
    record = {"amount": "dear", "category": "pots"}
    # What cannot be read breaks that, and no other rule.
    assert broken(expect, record) == [
        ("amount", "type"),
        ("title", "required"),
        ("category", "pattern"),
        ("category", "max_length"),
    ]


def test_values_are_left_out_with_a_note() -> None:
    expect = {
        "amount": {"min": 0, "action": "null"},
        "metadata.stock": {"type": "number", "action": None},
        "title": {"required": True, "pattern": "^[A-Z]", "actions": {"pattern": "null"}},
    }
    mapped = judged(
        {**expect, "title": {"pattern": "^[A-Z]", "action": "null"}}, {"title": "x", "amount": -1, "stock": "?"}
    )
    (item,) = (staged.item for staged in mapped.staged)
    assert (item.title, item.amount, item.metadata) == (None, None, {})
    assert [(fault.field, fault.rule, fault.value) for fault in mapped.nulled] == [
        ("amount", "min", "-1"),
        ("metadata.stock", "type", "?"),
        ("title", "pattern", "x"),
    ]
    # One that is rejected for another rule loses nothing.
    assert broken(expect, {"amount": -1}) == [("title", "required")]


def test_a_run_fails_where_it_is_to() -> None:
    with pytest.raises(ExpectationError, match="at least 0.*'-1'"):
        judged({"amount": {"min": 0, "action": "fail"}}, {"amount": -1})
    # Also of a record that would be rejected anyhow.
    with pytest.raises(ExpectationError):
        judged({"title": {"required": True, "action": "fail"}}, {"amount": "dear"})


def test_no_value_decides_how_long_a_pattern_takes() -> None:
    started = time.process_time()
    assert broken({"title": {"pattern": "^(a+)+$"}}, {"title": "a" * 50_000 + "!"}) == [("title", "pattern")]
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({"price": {"min": 0}}, "`expect.price` is no field"),
        ({"metadata.": {"min": 0}}, "`expect.metadata.` is no field"),
        ({"amount": {}}, "`expect.amount` has no rule"),
        ({"amount": {"minimum": 0}}, "unknown key `expect.amount.minimum`|minimum"),
        ({"amount": {"pattern": "x"}}, "`expect.amount.pattern` is no rule for it"),
        ({"title": {"min": 1}}, "`expect.title.min` is no rule for it"),
        ({"amount": {"min": 2, "max": 1}}, "`expect.amount.min` is above `max`"),
        ({"amount": {"min": "nan"}}, "`expect.amount.min`: 'nan'"),
        ({"amount": {"min": "nan", "max": "3"}}, "`expect.amount.min`: 'nan'"),
        ({"amount": {"enum": ["abc"]}}, "`expect.amount.enum`: 'abc'"),
        ({"amount": {"enum": [True]}}, "`expect.amount.enum`: True"),
        ({"amount": {"min": "low"}}, "`expect.amount.min`: 'low'"),
        ({"published_at": {"min": "2026-02-01", "max": "2026-01-01"}}, "`expect.published_at.min` is above"),
        ({"published_at": {"min": "soon"}}, "`expect.published_at.min`: 'soon'"),
        ({"title": {"pattern": "(a"}}, "`expect.title.pattern` is no pattern: missing"),
        ({"title": {"pattern": "(?=a)"}}, "`expect.title.pattern` is no pattern"),
        ({"title": {"enum": []}}, "`expect.title.enum` is an empty list"),
        ({"title": {"max_length": 0}}, "max_length"),
        ({"title": {"max_length": 1, "actions": {"pattern": "fail"}}}, "`expect.title.actions.pattern`"),
        ({"title": {"required": True, "action": "null"}}, "`expect.title.action`"),
        ({"external_id": {"pattern": "x", "action": "null"}}, "`expect.external_id.action`"),
        ({"title": {"max_length": 1, "action": "drop"}}, "action"),
    ],
)
def test_what_no_field_can_keep_is_refused_by_name(expect: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judged(expect, {})
