"""What a complete run did not meet any more is deleted, unless that is suspiciously much."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from etl.records import Cursor
from etl.runs.outcome import Failure, RejectLimits

# Percent of a source's items that may be missing, unless it says otherwise.
DEFAULT_MAX_DELETED = 10.0
# Items that are looked at in a step that counts, and in one that deletes.
MOST_COUNTED = 20_000
MOST_DELETED = 5_000
# While a process of another release is alive, which would count the items wrongly: seconds between two looks.
LOOK_SECONDS = 60.0

HELD = "deletions_held"
TOO_MANY = "too_many_deletions"


class Phase(StrEnum):
    """First all that is missing is counted, so that it can be held against the limit; then it is deleted."""

    COUNTING = "counting"
    DELETING = "deleting"


class DeletionCursor(Cursor, frozen=True, omit_defaults=False):
    """How far the items of a source were looked at, by their ids; how many are served, and how many were not met."""

    phase: Phase = Phase.COUNTING
    after: str = ""
    active: int = 0
    missing: int = 0


@dataclass(frozen=True)
class Seen:
    """What a run has met: so many ids, of which so many are on record, and so many records without one."""

    ids: int
    recorded: int
    lacking: int

    @property
    def doubt(self) -> Failure | None:
        """Why an item that is not on record may be there all the same, if so."""
        if self.lacking:
            return held(f"{self.lacking} records have no id, and may be those of items that seem to be missing")
        return None if self.recorded == self.ids else LOST


def held(reason: str) -> Failure:
    """Nothing is deleted, because of this."""
    return Failure(HELD, f"no item was deleted: {reason}")


LOST = held("the ids that the run had met were lost in a crash of the database; the next run reads all again")


def too_many(cursor: DeletionCursor, most: RejectLimits) -> Failure | None:
    """That more is missing than may be, of what was counted; None if it may be deleted."""
    if most.records is not None:
        is_over, limit = cursor.missing > most.records, f"{most.records} items"
    else:
        is_over, limit = cursor.missing * 100 > cursor.active * most.percent, f"{most.percent:g} %"
    if not is_over:
        return None
    message = (
        f"{cursor.missing} of {cursor.active} items are missing from the source; the limit is {limit} (`max_deleted`), "
        "so none was deleted. If they are meant to go, run it once by `POST /runs` with `accept_deletions`"
    )
    return Failure(TOO_MANY, message)
