"""What a trial has found, for a person who declares a source."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from etl import payload
from etl.declare.source import ApiSource, times_of
from etl.item import FIELDS
from etl.records import StoredRecord
from etl.secrets import hide
from etl.trial.suggest import suggest_map, suggest_paging, suggest_records

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from etl.declare.source import AnySource
    from etl.files.opening import Opening
    from etl.mapping.mapper import Mapper
    from etl.records import Fault, Item, Mapped, Reject
    from etl.trial.client import Answered
    from etl.trial.collect import Collected, TrialReporter

# Broken rules that are listed, and characters of a record that cannot be kept.
MOST_RULES = 50
MOST_RAW = 500
# A record or an item that is larger is not shown: bytes.
MOST_SHOWN = 32 * 1024


def stored(found: Collected, now: datetime) -> list[StoredRecord]:
    """The records as they would be stored, numbered by their place."""
    return [
        StoredRecord(number, now.isoformat(), record.external_id, record.content_hash, record.payload.decode())
        for number, record in enumerate(found.records)
    ]


def as_item(external_id: str | None, item: Item) -> dict[str, Any]:
    """An item as it would be served."""
    return {"external_id": external_id, **msgspec.structs.asdict(item)}


def report(
    source: AnySource,
    mapper: Mapper,
    found: Collected,
    mapped: Mapped,
    reporter: TrialReporter,
    answers: list[Answered],
    opening: Opening | None,
    refused: dict[int, str],
) -> dict[str, Any]:
    """All of it, as JSON is made of. `refused` are records that the database would not take, by place, and why."""
    records = [payload.decode(record.payload) for record in found.records]
    items = {one.record.raw_id: as_item(one.record.external_id, one.item) for one in mapped.staged}
    return {
        "source_name": source.name,
        "source_type": source.kind,
        "error": asdict(found.failure) if found.failure else None,
        "has_more": found.has_more,
        "pages": found.pages,
        "rows_skipped": found.skipped,
        "warnings": [asdict(one) for one in reporter.warnings],
        "requests": _requests(reporter, answers),
        "dialect": None if opening is None else _dialect(opening),
        "paging": _paging(source, found, answers),
        "records": [_cut(record.payload) for record in found.records],
        "items": [_cut(_json(items[number])) for number in sorted(items) if number not in refused],
        "rejects": [_reject(one) for one in mapped.rejects],
        "unstorable": [
            {"rule": one.rule, "message": one.message, "raw": hide(one.raw[:MOST_RAW].decode("utf-8", "replace"))}
            for one in found.bad
        ],
        "refused": [{"record": number, "message": message} for number, message in sorted(refused.items())],
        "filled": _filled(items.values()),
        "broken_rules": _broken(mapped),
        "ids": _ids(found),
        "suggested_map": _new(suggest_map(records, times_of(source)), source),
        "suggested_records": None if records or found.bad else suggest_records(_answer(answers)),
        "mapped_from": mapper.mapped(records),
    }


_json = msgspec.json.Encoder(decimal_format="number").encode


def _cut(written: bytes) -> msgspec.Raw | None:
    """JSON as it is; None where it is too large to be shown."""
    return msgspec.Raw(written) if len(written) <= MOST_SHOWN else None


def _requests(reporter: TrialReporter, answers: list[Answered]) -> list[dict[str, Any]]:
    """Requests with the beginnings of their answers."""
    told = {answer.number: {"headers": answer.headers, "body": answer.beginning} for answer in answers}
    nothing: dict[str, Any] = {"headers": {}, "body": None}
    return [msgspec.structs.asdict(one) | told.get(place, nothing) for place, one in enumerate(reporter.requests)]


def _dialect(opening: Opening) -> dict[str, Any]:
    form = opening.form
    return {
        "delimiter": form.delimiter,
        "quote": form.quote,
        "encoding": form.encoding,
        "is_guessed": opening.guessed,
        "titles_skipped": opening.titles,
        "columns": opening.header.columns,
    }


def _paging(source: AnySource, found: Collected, answers: list[Answered]) -> dict[str, Any] | None:
    if not isinstance(source, ApiSource):
        return None
    style = str(source.paginate.__struct_config__.tag)
    suggested = None
    if style == "none" and answers:
        suggested = suggest_paging(answers[0].headers, _answer(answers))
    return {"style": style, "pages_read": found.pages, "suggested": suggested}


def _answer(answers: list[Answered]) -> Any:
    """The first answer, if it is JSON that can be looked into."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return msgspec.json.decode(answers[0].whole) if answers else None
    return None


def _new(suggested: dict[str, str], source: AnySource) -> dict[str, str]:
    """What of a mapping is not declared already."""
    return {name: path for name, path in suggested.items() if name not in (source.map or {})}


def _reject(one: Reject) -> dict[str, Any]:
    return {
        "record": one.record.raw_id,
        "external_id": one.record.external_id,
        "errors": [msgspec.structs.asdict(fault) for fault in one.faults],
    }


def _filled(items: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The share of items that have a value, by field."""
    listed = list(items)
    if not listed:
        return {}
    counts = {field.name: sum(item[field.name] is not None for item in listed) for field in FIELDS}
    return {name: round(count / len(listed), 3) for name, count in counts.items()}


def _broken(mapped: Mapped) -> list[dict[str, Any]]:
    """The rules that were broken, and how often, also where only a value is left out."""
    faults: list[Fault] = [fault for one in mapped.rejects for fault in one.faults] + list(mapped.nulled)
    counts = Counter((fault.field, fault.rule) for fault in faults)
    samples = {(fault.field, fault.rule): fault for fault in reversed(faults)}
    return [
        {"field": field, "rule": rule, "records": count, "value": samples[field, rule].value}
        | {"message": samples[field, rule].message}
        for (field, rule), count in counts.most_common(MOST_RULES)
    ]


def _ids(found: Collected) -> dict[str, int]:
    ids = [record.external_id for record in found.records]
    known = [external_id for external_id in ids if external_id is not None]
    return {"records": len(ids), "without_id": len(ids) - len(known), "repeated": len(known) - len(set(known))}
