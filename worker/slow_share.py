"""A slice's part in the share of the processes that slow sources have."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from db.queries.share import enter_share, mark_slow, note_answer, note_miss
from etl.share import QUICK_ANSWER, Pace
from etl.slices import Slowness

if TYPE_CHECKING:
    from worker.lease import Lease


class SlowShare:
    """Whether the slice counts among those of slow sources, and so how patient it may be."""

    def __init__(self, lease: Lease) -> None:
        claim = lease.claim
        self.is_held = claim.slow
        self.pace = Pace(answered=claim.answered, misses=claim.misses, slow=claim.slow, alone=claim.alone)
        self._lease = lease

    def answered(self, seconds: float) -> bool:
        """The source's answer began after so many seconds. True when that makes room for another slow source."""
        if seconds > QUICK_ANSWER or (self.pace.answered and not self.pace.misses):
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
        if slowness is Slowness.MISSED:
            self._lease.transact(note_miss, claim.run_id, claim.source_name)
        else:
            self._lease.transact(mark_slow, claim.run_id)
        self.is_held = True
