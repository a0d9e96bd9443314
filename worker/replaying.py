"""One slice of a replay: batches over stored rows, as long as there is room for them and time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db.queries.replays import older_runs, take_next
from etl.runs.messages import BatchMessage
from etl.runs.replays import LOOK_SECONDS
from etl.runs.slices import Finished, Pause, Yielded, after_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from etl.runs.messages import Message
    from etl.runs.slices import Deadline, SliceEnd
    from worker.lease import Lease


def make_batches(lease: Lease, send: Callable[[Sequence[Message]], None], deadline: Deadline) -> SliceEnd:
    """Make batches and send for them until something ends the slice: what that is.

    What an older mapping still brings in is waited for: it would be served by the old one for good.
    """
    if lease.claim.scope.cases is None and lease.read(older_runs, lease.claim):
        return Yielded(Pause.WAIT, LOOK_SECONDS)
    while True:
        taken = lease.transact(take_next, lease.claim, lease.seconds)
        lease.took(taken)
        if taken.batch_id is not None:
            send([BatchMessage(taken.batch_id, low=True)])
        if taken.position.finished:
            return Finished()
        if end := after_batch(taken.position, len(taken.open_batches), deadline):
            return end
