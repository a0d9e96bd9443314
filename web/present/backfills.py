"""Backfills as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etl.runs.backfills import Plan


def present_plan(plan: Plan) -> dict[str, Any]:
    """How much a backfill is."""
    span = plan.span
    return {
        "source_name": plan.source_name,
        "windows": span.windows,
        "window_seconds": span.seconds,
        "first": span.window(0),
        "last": span.window(span.windows - 1),
        "requests_at_least": span.windows,
        "requests_at_most": span.windows * plan.max_pages,
        "seconds_at_least": span.windows * plan.interval,
    }
