"""One slice of a run that has read its source: what that has no more is deleted, a step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.deletions import delete_some
from db.queries.processes import are_of_one_release
from etl.runs.deletions import LOOK_SECONDS
from etl.runs.slices import Finished, Pause, Yielded

if TYPE_CHECKING:
    from etl.runs.slices import Deadline, SliceEnd
    from worker.lease import Lease


def delete_missing(lease: Lease, deadline: Deadline) -> SliceEnd:
    """Delete until all is done or something ends the slice: what that is. What was read has to be loaded first."""
    if lease.claim.open_batches:
        return Yielded(Pause.ROOM)
    if not lease.read(are_of_one_release):
        return Yielded(Pause.WAIT, LOOK_SECONDS)
    while True:
        step = lease.transact(delete_some, lease.claim, lease.seconds)
        lease.deleted(step)
        if step.is_last:
            return Finished()
        if deadline.is_over():
            return Yielded(Pause.TIME)
