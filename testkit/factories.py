"""Sources and mappers with as little declared as they need."""

from __future__ import annotations

from typing import Any

from etl.declare.source import ApiSource, parse
from etl.mapping.mapper import Mapper


def api_source(records: str = "@", **more: Any) -> ApiSource:
    source = parse({"name": "a", "type": "api", "request": {"url": "http://x/"}, "records": records, **more})
    assert isinstance(source, ApiSource)
    return source


def csv_mapper(max_record: int | None = None, **more: Any) -> Mapper:
    source = parse({"name": "a", "type": "csv", "file": "x", **more})
    return Mapper(source) if max_record is None else Mapper(source, max_record)
