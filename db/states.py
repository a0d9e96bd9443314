"""Sets of states, as SQL conditions.

They are literals in the text of a statement, not values, so that the planner can use partial indexes for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ACTIVE_RUN = "status IN ('queued', 'running')"
# Skipped and cancelled runs say nothing of a source.
JUDGED_RUN = "status IN ('success', 'partial', 'failed')"
OPEN_BATCH = "state IN ('extracted', 'normalized')"

# Of a backfill that has not begun: others of them go on, as many as may.
WAITS_FOR_ROOM = "(lane = 'backfill' AND status = 'queued' AND dispatched_at IS NULL)"

# Of a source `s`.
IS_PAUSED = "coalesce(s.paused_until > clock_timestamp(), false)"


def gained(batch: str) -> str:
    """By how many more items are served since a batch has ended; releases before this one did not say, or delete."""
    return f"coalesce({batch}.items_gained, {batch}.records_inserted)"


def has_room(run: str, most: str) -> str:
    """That so few batches of a run are open that its extraction may go on: none, once all of the source was read."""
    return f"""(
        (SELECT count(*) FROM etl_batches o WHERE o.run_id = {run}.run_id AND o.{OPEN_BATCH})
        <= CASE WHEN coalesce(({run}.position ->> 'finished')::boolean, false) THEN 0 ELSE {most} END)"""


def one_of(column: str, values: Iterable[str]) -> str:
    """That a column has one of these values."""
    return f"{column} IN ({', '.join(map(repr, map(str, values)))})"
