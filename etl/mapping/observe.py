"""What the records of a batch look like: which fields they have, of what kinds, and which of an item stay empty.

A sample of the records tells that, at a cost that does not grow with the batch; only what would be an alarm is looked
for in all of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from etl import payload
from etl.item import FIELDS, Kind
from etl.records import Mapped, Nulled, Observed, Sight

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from decimal import Decimal

    from etl.mapping.mapper import Mapper
    from etl.records import Fault, Item, StagedItem, StoredRecord

_SAMPLED = 30
# Fields of a record that are looked at, and characters of a name or a value that are kept.
_MOST_FIELDS = 300
_MOST_TOGETHER = 1000
_LONGEST_NAME = 200
_SHOWN = 60
_NUMERIC = re.compile(r"[+-]?[\d.,' ]*\d[%]?")
_NUMBERS = tuple(field.name for field in FIELDS if field.kind is Kind.NUMBER)
_NUMBER_STARTS = frozenset("0123456789+-.")
Thing = TypeVar("Thing")


def map_records(mapper: Mapper, records: list[StoredRecord]) -> Mapped:
    """The items and the rejects of stored records, and what they look like."""
    mapped = mapper.normalize(records)
    return replace(mapped, observed=observe(mapper, mapped))


def observe(mapper: Mapper, mapped: Mapped) -> Observed:
    """What a batch of new and changed records looks like."""
    staged, rejects = mapped.staged, mapped.rejects
    records = [one.record for one in staged] + [one.record for one in rejects]
    sample = _contents(records)
    return Observed(
        records=len(records),
        sampled=len(sample),
        sampled_items=len(_some([one.item for one in staged])),
        keys=_sights(sample),
        items=_items(mapper, [one.item for one in staged], sample),
        forms=_forms(staged) if mapper.reads_plain_numbers else {},
        nulled=_nulled(mapped.nulled),
    )


def _nulled(faults: Sequence[Fault]) -> dict[str, Nulled]:
    found: dict[str, Nulled] = {}
    for fault in faults:
        name = f"{fault.field}: {fault.rule}"
        before = found.get(name) or Nulled(fault.field, fault.rule, 0, fault.value)
        found[name] = replace(before, count=before.count + 1)
    return found


def _contents(records: list[StoredRecord]) -> list[dict[str, Any]]:
    return [payload.decode(record.payload) for record in _some(records)]


def _some(things: list[Thing]) -> list[Thing]:
    """A sample, evenly spread."""
    return things[:: max(1, len(things) // _SAMPLED)][:_SAMPLED]


def _sights(sample: list[dict[str, Any]]) -> dict[str, Sight]:
    kinds: dict[str, dict[str, float]] = {}
    samples: dict[str, str] = {}
    for content in sample:
        for name, value in content.items():
            if name not in kinds:
                if len(kinds) >= _MOST_FIELDS or len(name) > _LONGEST_NAME:
                    continue
                kinds[name] = {}
            if value is not None and value != "":
                found, kind = kinds[name], _kind(value)
                if not found:
                    samples[name] = _shown(value)
                found[kind] = found.get(kind, 0) + 1
    return {name: Sight(found, samples.get(name)) for name, found in kinds.items()}


def _items(mapper: Mapper, items: list[Item], sample: list[dict[str, Any]]) -> dict[str, Sight]:
    """How often each field of an item that has a source in the records holds a value."""
    found: dict[str, Sight] = {}
    sampled = _some(items)
    for target, path in mapper.mapped(sample).items():
        held = sum(1 for item in sampled if getattr(item, target) is not None)
        if not held and any(getattr(item, target) is not None for item in items):
            held = 1
        is_missing = not held and bool(sample) and not any(mapper.has(path, content) for content in sample)
        found[target] = Sight(
            {"value": held} if held else {"missing": len(sampled) or len(sample)} if is_missing else {}, None, path
        )
    return found


def _forms(staged: Sequence[StagedItem]) -> dict[str, str]:
    """Of number fields: a value that would be another number if its point separated thousands, "" if none would be."""
    found = ((name, _form(getattr(one.item, name) for one in staged)) for name in _NUMBERS)
    return {name: form for name, form in found if form is not None}


def _form(values: Iterable[Decimal | None]) -> str | None:
    """Looks through the values of a field until one shows that its point stands before decimals."""
    doubtful: str | None = None
    for value in values:
        if value is None:
            continue
        before, point, after = str(value).partition(".")
        if not point:
            continue
        if len(after) != 3 or not after.isdigit() or len(before.lstrip("-")) > 3 or abs(value) < 1:
            return ""
        doubtful = doubtful or str(value)
    return doubtful


def merged(batches: Iterable[Observed]) -> Observed:
    """What several batches look like together."""
    whole = Observed()
    for one in batches:
        whole = Observed(
            records=whole.records + one.records,
            sampled=whole.sampled + one.sampled,
            sampled_items=whole.sampled_items + one.sampled_items,
            keys=_together(whole.keys, one.keys),
            items=_together(whole.items, one.items),
            nulled=_all_nulled(whole.nulled, one.nulled),
            forms={**whole.forms, **{name: _proof(whole.forms.get(name), form) for name, form in one.forms.items()}},
        )
    return whole


def _all_nulled(one: dict[str, Nulled], other: dict[str, Nulled]) -> dict[str, Nulled]:
    both = {name: replace(one[name], count=one[name].count + new.count) for name, new in other.items() if name in one}
    return {**one, **other, **both}


def _proof(before: str | None, form: str) -> str:
    return "" if before == "" or form == "" else before or form


def _together(one: dict[str, Sight], other: dict[str, Sight]) -> dict[str, Sight]:
    both = dict(one)
    for name, sight in other.items():
        if name not in both and len(both) >= _MOST_TOGETHER:
            continue
        before = both.get(name, Sight())
        kinds = {kind: before.kinds.get(kind, 0) + sight.kinds.get(kind, 0) for kind in {*before.kinds, *sight.kinds}}
        both[name] = Sight(kinds, before.sample or sight.sample, sight.path or before.path)
    return both


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "number as text" if value[0] in _NUMBER_STARTS and _NUMERIC.fullmatch(value) else "text"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, list):
        return "list"
    return "object" if isinstance(value, dict) else "number"


def _shown(value: Any) -> str:
    return (value if isinstance(value, str) else payload.encode(value).decode())[:_SHOWN]
