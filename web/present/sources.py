"""Sources as the API shows them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import yaml

from etl.declare.credentials import masked
from etl.declare.revision import all_differences, differences
from web.present.health import flags, last_status

if TYPE_CHECKING:
    from sqlalchemy import Row

    from db.queries.declaring import Applied
    from db.queries.versions import Mapping

_AS_THEY_ARE = (
    *("name", "type", "enabled", "tags", "origin", "version", "mapping_version", "schedule", "paused", "paused_until"),
    *("last_run_at", "last_success_at", "last_failure_at", "next_run_at", "not_before", "not_before_reason"),
    *("gone_reason", "created_at", "updated_at"),
)


def present_sources(
    rows: list[Row[Any]], limit: int, details: dict[str, Row[Any]] | None = None, counts: Row[Any] | None = None
) -> dict[str, Any]:
    """A page of sources; one row more than fits says that another page follows."""
    shown = rows[:limit]
    page: dict[str, Any] = {
        "sources": [_summary(row) | (_details(details[row.name]) if details else {}) for row in shown],
        "next_cursor": shown[-1].name if len(rows) > limit else None,
    }
    return page if counts is None else page | {"counts": counts._asdict()}


def _details(row: Row[Any]) -> dict[str, Any]:
    runs = [{**run, "created_at": datetime.fromisoformat(run["created_at"])} for run in row.runs]
    return {"recent_runs": runs, "open_rejects": row.open}


def present_source(row: Row[Any], warnings: list[str], details: Row[Any]) -> dict[str, Any]:
    """A source with its document, in which no credential stands."""
    return {**_summary(row), **_details(details), "source": masked(row.config), "warnings": warnings}


def _summary(row: Row[Any]) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in _AS_THEY_ARE},
        "status": last_status(row),
        **flags(row),
        "total_items": row.total_items or 0,
    }


def present_applied(applied: Applied, *, dry_run: bool) -> dict[str, Any]:
    """What declaring sources changed, or would."""
    changed = [
        {"name": name, "differences": list(map(asdict, applied.differences.get(name, ())))} for name in applied.changed
    ]
    return {
        "dry_run": dry_run,
        "created": list(applied.created),
        "changed": changed,
        "disabled": list(applied.disabled),
        "missing": list(applied.missing),
        "unchanged_total": len(applied.unchanged),
    }


def present_versions(source_name: str, rows: list[Row[Any]], limit: int) -> dict[str, Any]:
    """The newest so many versions, each with what is new in it; one more is there for that of the last."""
    shown = []
    for number, row in enumerate(rows[:limit]):
        before = rows[number + 1].document if number + 1 < len(rows) else row.document
        found = list(map(asdict, all_differences(before, row.document)))
        about = {name: getattr(row, name) for name in ("version", "mapping_version", "made_at", "made_by")}
        shown.append({**about, "source": masked(row.document), "differences": found})
    cursor = rows[limit - 1].version if len(rows) > limit else None
    return {"source_name": source_name, "versions": shown, "next_cursor": cursor}


def present_fields(source_name: str, rows: list[Row[Any]]) -> dict[str, Any]:
    """What the records of a source look like."""
    shown = [row._asdict() for row in rows]
    return {"source_name": source_name, "drifted": sum(row.drift is not None for row in rows), "fields": shown}


def as_yaml(rows: list[Row[Any]]) -> str:
    """Sources as items of a list in YAML."""
    documents = [_in_order(masked(row.config)) for row in rows]
    text: str = yaml.dump(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def _in_order(document: dict[str, Any]) -> dict[str, Any]:
    first = [key for key in _FIRST if key in document]
    return {key: document[key] for key in (*first, *(key for key in document if key not in _FIRST))}


# As people write them; the database keeps no order.
_FIRST = ("name", "type", "enabled", "tags", "schedule", "request", "file")


# libyaml's, where it is there, takes a tenth of the time.
class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc] # chosen when it runs
    """Writes what stands twice twice, instead of an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        """There are none."""
        del data
        return True


def present_mappings(source_name: str, mappings: list[Mapping], limit: int) -> dict[str, Any]:
    """The newest so many mapping versions, each with what is new in it; one more is there for that of the last."""
    shown = []
    for number, mapping in enumerate(mappings[:limit]):
        before = mappings[number + 1].document if number + 1 < len(mappings) else mapping.document
        shown.append({**_mapping(mapping), "differences": list(map(asdict, differences(before, mapping.document)))})
    return {"source_name": source_name, "mappings": shown}


def _mapping(mapping: Mapping) -> dict[str, Any]:
    return {name: getattr(mapping, name) for name in ("mapping_version", "made_at", "made_by", "reader")}
