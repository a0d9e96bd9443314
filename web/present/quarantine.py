"""Rejected records as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from sqlalchemy import Row


def present_cases(rows: list[Row[Any]], limit: int) -> dict[str, Any]:
    """A page of cases; one row more than fits says that another page follows."""
    shown = rows[:limit]
    return {
        "cases": [row._asdict() for row in shown],
        "next_cursor": shown[-1].id if len(rows) > limit else None,
    }


def present_case(row: Row[Any]) -> dict[str, Any]:
    """A case as a whole, its record as the source gave it."""
    case = row._asdict()
    payload, raw = case.pop("raw_payload"), case.pop("raw_bytes")
    case["raw_payload"] = None if payload is None else msgspec.Raw(payload.encode())
    case["raw_text"] = None if raw is None else bytes(raw).decode("utf-8", "replace")
    return case | {"errors": case["errors"] or [], "earlier": case["earlier"] or []}


def present_groups(rows: list[Row[Any]]) -> dict[str, Any]:
    """Open cases by cause, each with a sample."""
    return {"groups": [_group(row._asdict()) for row in rows]}


def _group(row: dict[str, Any]) -> dict[str, Any]:
    count, since, latest = row.pop("count"), row.pop("since"), row.pop("latest")
    named = {name: row[name] for name in ("source_name", "field", "rule")}
    return {**named, "count": count, "first_seen_at": since, "last_seen_at": latest, "sample": row}
