"""Rows as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etl.outcome import ACTIVE

if TYPE_CHECKING:
    from sqlalchemy import Row

    from etl.run_requests import Requested

_COUNTED = ("inserted", "updated", "unchanged", "duplicate", "failed")
_LOADED = ("inserted", "updated", "unchanged")


def present_run(row: Row[Any]) -> dict[str, Any]:
    """A run with the counts that are derived: loaded, and what is neither loaded nor rejected yet."""
    run = row._asdict()
    counts = {name: run[f"records_{name}"] for name in _COUNTED}
    run["records_loaded"] = sum(counts[name] for name in _LOADED)
    run["records_not_loaded"] = run["records_extracted"] - sum(counts.values())
    code, message = run.pop("error_code"), run.pop("error_message")
    run["error"] = {"code": code, "message": message} if code else None
    total, closed, extracted = run.pop("batches_total"), run.pop("batches_closed"), run.pop("extracted")
    if row.status in ACTIVE:
        run["progress"] = {"batches_total": total, "batches_loaded": closed, "extraction_done": extracted}
    return run


def present_requested(requested: Requested) -> dict[str, Any]:
    """What came of a request to run."""
    runs = [{"run_id": run.run_id, "source_name": run.source.name, "status": run.status} for run in requested.runs]
    return {"runs": runs, "set_aside_total": requested.set_aside}
