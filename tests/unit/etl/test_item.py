"""What is written out for each field of an item agrees with the table of fields."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from db.copy import NEXT, array
from db.models.items import ItemContent
from db.queries.batches import _staged_line
from etl.item import COLUMNS, FIELDS, Kind
from etl.records import Item, StagedItem, StoredRecord
from web.schemas.data import ItemSchema

NAMES = [field.name for field in FIELDS]
VALUES: dict[Kind, Any] = {Kind.NUMBER: Decimal("1.5"), Kind.TAGS: ["a"], Kind.TIME: datetime(2026, 1, 2, tzinfo=UTC)}


def test_items_columns_and_answers_have_the_fields() -> None:
    assert [field.name for field in msgspec.structs.fields(Item)] == list(COLUMNS)
    assert list(ItemContent.__annotations__) == NAMES
    assert set(NAMES) <= set(ItemSchema().fields)


def test_a_line_for_copy_has_each_field_in_the_place_of_its_column() -> None:
    record = StoredRecord(1, "2026-01-01", "key", b"h", "{}")
    empty = _staged_line(StagedItem(record, Item())).split(NEXT)
    for field in FIELDS:
        value: Any = VALUES.get(field.kind, "text")
        item = Item(**{field.name: value})
        line = _staged_line(StagedItem(record, item)).split(NEXT)
        differ = [place for place, (one, other) in enumerate(zip(empty, line, strict=True)) if one != other]
        assert differ == [len(line) - len(COLUMNS) + COLUMNS.index(field.name)], field.name


def test_a_text_of_an_array_cannot_end_the_one_before() -> None:
    with pytest.raises(ValueError, match="NUL"):
        array(["a", 'b\0","c'])
