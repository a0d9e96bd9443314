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


def one_of(column: str, values: Iterable[str]) -> str:
    """That a column has one of these values."""
    return f"{column} IN ({', '.join(map(repr, map(str, values)))})"
