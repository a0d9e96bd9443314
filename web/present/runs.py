"""Runs as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl.records import Counts
from etl.runs.outcome import ACTIVE, Lane
from web.cursors import RunCursor, pack

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Row

    from etl.runs.run_requests import Requested


# Of runs that were asked for in one request.
SHOWN_RUNS = 1000


def present_run(row: Row[Any]) -> dict[str, Any]:
    """A run with the counts that are derived: loaded, and what is neither loaded nor rejected yet."""
    run = row._asdict()
    counts = Counts(**{name: run[key] for name in Counts.__struct_fields__ if (key := f"records_{name}") in run})
    run["records_changed"] = counts.inserted + counts.updated
    run["records_loaded"] = counts.loaded
    run["records_not_loaded"] = counts.not_loaded
    code, message = run.pop("error_code"), run.pop("error_message")
    run["error"] = {"code": code, "message": message} if code else None
    total, closed, extracted = run.pop("batches_total"), run.pop("batches_closed"), run.pop("extracted")
    scope, window = run.pop("scope"), run.pop("window_number")
    if row.status in ACTIVE:
        run["progress"] = {"batches_total": total, "batches_loaded": closed, "extraction_done": extracted}
        if row.lane == Lane.BACKFILL:
            done = scope["windows"] if extracted else int(window or 0)
            run["progress"] |= {"windows_total": scope["windows"], "windows_done": done}
    return run


def present_run_with_events(row: Row[Any], events: list[Row[Any]]) -> dict[str, Any]:
    """A run and its timeline."""
    return {**present_run(row), "events": [event._asdict() for event in events]}


def present_runs(rows: list[Row[Any]], limit: int) -> dict[str, Any]:
    """A page of runs; one row more than fits says that another page follows."""
    shown = rows[:limit]
    cursor = pack(RunCursor(shown[-1].created_at, shown[-1].run_id)) if len(rows) > limit else None
    return {"runs": [present_run(row) for row in shown], "next_cursor": cursor}


def present_parts(run_id: UUID, name: str, run: Row[Any], rows: list[Row[Any]]) -> dict[str, Any]:
    """What a run consists of, or has asked for."""
    return {"run_id": run_id, "status": run.status, name: [row._asdict() for row in rows]}


def present_requested(requested: Requested) -> dict[str, Any]:
    """What came of a request to run: the first runs, and how many there are."""
    runs = [
        {"run_id": run.run_id, "source_name": run.source.name, "status": run.status}
        for run in requested.runs[:SHOWN_RUNS]
    ]
    return {
        "runs": runs,
        "queued_total": len(requested.queued),
        "already_active_total": requested.already_active,
        "set_aside_total": requested.set_aside,
    }
