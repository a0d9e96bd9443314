"""The end of a run, and the questions that are asked once it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.closing import close_run
from db.queries.uniqueness import look_at_values

if TYPE_CHECKING:
    from uuid import UUID

    from db.session import Database
    from etl.runs.outcome import Outcome


def close(database: Database, run_id: UUID) -> Outcome | None:
    """End a run if it is time; None when it is not, or it has ended already. What takes long holds no row of it."""
    outcome = database.transact(close_run, run_id)
    if outcome is not None:
        database.transact(look_at_values, run_id)
    return outcome
