"""Totals as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from web.present.health import flags
from web.present.runs import present_run

if TYPE_CHECKING:
    from sqlalchemy import Row


def present_stats(totals: Row[Any], sources: list[Row[Any]], runs: list[Row[Any]]) -> dict[str, Any]:
    """The totals of all sources, of each, and the latest runs."""
    return {
        "total_records": totals.items,
        "total_sources": totals.sources,
        "active_sources": totals.active,
        "records_by_source_type": totals.by_type,
        "source_statistics": [_statistics(row) for row in sources],
        "recent_runs": [present_run(row) for row in runs],
        "last_etl_success": totals.last_success_at,
        "last_etl_failure": totals.last_failure_at,
        "avg_etl_duration_seconds": None if totals.average_seconds is None else round(totals.average_seconds, 3),
    }


def _statistics(row: Row[Any]) -> dict[str, Any]:
    judged = row.success + row.partial + row.failed
    return {
        "source_name": row.source_name,
        "source_type": row.source_type,
        "total_records": row.items,
        "success_rate": round(100 * row.success / judged, 2) if judged else None,
        "total_runs": row.runs,
        "avg_records_per_run": round(row.extracted / judged, 2) if judged else None,
        "last_success_at": row.last_success_at,
        "last_failure_at": row.last_failure_at,
        **flags(row),
    }
