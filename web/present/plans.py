"""Plans as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from etl.runs.plans import Diff

if TYPE_CHECKING:
    from sqlalchemy import Row


def present_plan(row: Row[Any]) -> dict[str, Any]:
    """A plan, with the diff as far as it is known."""
    plan = row._asdict()
    scope, found = plan.pop("scope"), msgspec.convert(plan.pop("found"), Diff)
    diff = msgspec.structs.asdict(found)
    diff["fields_changed"] = diff.pop("fields")
    diff["samples"] = {kind: msgspec.to_builtins(samples) for kind, samples in found.samples.items()}
    times = {name: datetime.fromisoformat(scope[name]) if scope.get(name) else None for name in ("since", "until")}
    return {**plan, **times, "run_id": scope.get("run_id"), "one_in": scope.get("every", 1), "diff": diff}
