"""What a slice holds: the claim on its run, renewed in time and shown to the watchdog, and a part of the slow share."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from db.queries.runs import renew_run
from db.queries.share import enter_share, mark_slow, note_answer, note_miss
from etl.runs.outcome import Lane
from etl.runs.share import QUICK_ANSWER, Pace
from etl.runs.slices import Slowness
from worker.board import BOARD, RUN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from db.queries.deletions import DeletionStep
    from db.queries.extraction import Stored
    from db.queries.replays import Taken
    from db.session import Database
    from etl.records import Position, RawBatch
    from etl.runs.slices import RunClaim

P = ParamSpec("P")
T = TypeVar("T")

# The lease outlives an HTTP attempt by this much: seconds.
MARGIN = 5.0
# Work that computes looks at its claim this often: seconds.
LOOK_SECONDS = 2.0
# What computes for longer without a look, or waits longer for the database than it ever would, is ended from outside.
COMPUTE_SECONDS = 15.0
DATABASE_SECONDS = 90.0


class Lease:
    """A claim that was taken just now."""

    def __init__(self, database: Database, claim: RunClaim, seconds: float, clock: Callable[[], float]) -> None:
        """`seconds` is how long a lease holds; `clock` is monotonic."""
        self.claim = claim
        self.seconds = seconds
        self._database = database
        self._clock = clock
        self._looked = clock()
        self._until = self._looked + seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """While it is held, the watchdog minds it."""
        BOARD.hold(RUN, self.claim.run_id, self.claim.token, DATABASE_SECONDS)
        try:
            yield
        finally:
            BOARD.free()

    def keep(self, seconds: float) -> None:
        """The lease must outlive what takes so many seconds, and whether we still have it is looked up now and then.

        Raises:
            LeaseLostError: it is no longer ours.
        """
        BOARD.look(seconds + COMPUTE_SECONDS)
        now = self._clock()
        if now + seconds + MARGIN < self._until and now - self._looked < LOOK_SECONDS:
            return
        needed = max(self.seconds, seconds + MARGIN)
        self.transact(renew_run, self.claim.run_id, self.claim.token, needed)
        BOARD.look(seconds + COMPUTE_SECONDS)
        self._renewed(needed)

    def begin(self, position: Position) -> None:
        """The source is read from here on."""
        self.claim = replace(self.claim, position=position)

    def advance(self, batch: RawBatch, stored: Stored) -> None:
        """A batch was stored, which renewed the lease; with the last one the claim is gone, and is not to be missed."""
        self.claim = replace(
            self.claim,
            batches=self.claim.batches + bool(batch.extracted),
            open_batches=stored.open_batches,
            position=batch.position,
        )
        self._renewed(self.seconds)
        if batch.position.finished and not self.claim.deletes_after(batch.position):
            BOARD.free()

    def deleted(self, step: DeletionStep) -> None:
        """The same for a step of deleting."""
        self.claim = replace(self.claim, batches=step.batches, position=step.position)
        self._renewed(self.seconds)
        if step.is_last:
            BOARD.free()

    def took(self, taken: Taken) -> None:
        """The same for a batch of stored rows."""
        self.claim = replace(
            self.claim,
            batches=self.claim.batches + (taken.batch_id is not None),
            open_batches=taken.open_batches,
            position=taken.position,
        )
        self._renewed(self.seconds)
        if taken.position.finished:
            BOARD.free()

    def _renewed(self, seconds: float) -> None:
        self._looked = self._clock()
        self._until = self._looked + seconds

    def transact(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A transaction; the time that it takes is not the source's."""
        with elsewhere():
            return self._database.transact(work, *args, **kwargs)

    def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Reading, likewise."""
        with elsewhere():
            return self._database.read(work, *args, **kwargs)


class SlowShare:
    """Whether the slice counts among those of slow sources, and so how patient it may be."""

    def __init__(self, lease: Lease) -> None:
        claim = lease.claim
        self.is_held = claim.slow
        self.pace = Pace(answered=claim.answered, misses=claim.misses, slow=claim.slow, alone=claim.alone)
        self._lease = lease
        # What other lanes meet says nothing of the source.
        self._is_fetched = claim.lane is Lane.FETCH

    def answered(self, seconds: float) -> bool:
        """The source's answer began after so many seconds. True when that makes room for another slow source."""
        if not self._is_fetched or seconds > QUICK_ANSWER or (self.pace.answered and not self.pace.misses):
            return False
        claim = self._lease.claim
        self._lease.transact(note_answer, claim.run_id, claim.source_name)
        self.pace = replace(self.pace, answered=True, misses=0, slow=bool(claim.deaths))
        was_held, self.is_held = self.is_held, self.is_held and bool(claim.deaths)
        return was_held and not self.is_held

    def enter(self) -> bool:
        """Whether a download may go on beyond its slice."""
        self.is_held = self.is_held or self._lease.transact(enter_share, self._lease.claim.run_id)
        return self.is_held

    def note(self, slowness: Slowness | None) -> None:
        """The source was slow: its next slices belong to the share."""
        claim = self._lease.claim
        if slowness is None:
            return
        if slowness is Slowness.MISSED and self._is_fetched:
            self._lease.transact(note_miss, claim.run_id, claim.source_name)
        else:
            self._lease.transact(mark_slow, claim.run_id)
        self.is_held = True


@contextmanager
def elsewhere() -> Iterator[None]:
    """This process waits for the database, or for a broker that hangs."""
    BOARD.look(DATABASE_SECONDS)
    try:
        yield
    finally:
        BOARD.look(COMPUTE_SECONDS)
