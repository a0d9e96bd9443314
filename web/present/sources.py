"""Sources as the API shows them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from etl.declare.revision import differences

if TYPE_CHECKING:
    from db.queries.versions import Mapping


def present_mappings(source_name: str, mappings: list[Mapping], limit: int) -> dict[str, Any]:
    """The newest so many mapping versions, each with what is new in it; one more is there for that of the last."""
    shown = []
    for number, mapping in enumerate(mappings[:limit]):
        before = mappings[number + 1].document if number + 1 < len(mappings) else mapping.document
        shown.append({**_mapping(mapping), "differences": list(map(asdict, differences(before, mapping.document)))})
    return {"source_name": source_name, "mappings": shown}


def _mapping(mapping: Mapping) -> dict[str, Any]:
    return {name: getattr(mapping, name) for name in ("mapping_version", "made_at", "made_by", "reader")}
