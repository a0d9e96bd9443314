"""Where an item comes from, as the API shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from etl.declare.source import contract_of, mapping_of

if TYPE_CHECKING:
    from db.queries.lineage import Lineage


def present_lineage(found: Lineage) -> dict[str, Any]:
    """The item, its record, the runs that fetched and wrote it, and the mapping."""
    return {
        "item": msgspec.Raw(found.item.encode()),
        "record": {
            "raw_data_id": found.raw_data_id,
            "ingested_at": found.raw_ingested_at,
            "payload": None if found.payload is None else msgspec.Raw(found.payload.encode()),
        },
        "fetched_by": found.fetched_by,
        "written_by": found.written_by,
        "requests": found.requests or [],
        "mapping": _mapping(found),
        "earlier": msgspec.Raw(found.earlier.encode()),
        "erasure": found.erasure,
    }


def _mapping(found: Lineage) -> dict[str, Any]:
    document = found.document
    said = None if document is None else mapping_of(document) | contract_of(document)
    return {
        "mapping_version": found.mapping_version,
        "made_at": found.made_at,
        "made_by": found.made_by,
        "document": said and {key: value for key, value in said.items() if value is not None},
    }
