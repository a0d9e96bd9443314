"""How a run ends, by its counts and the error of its extraction, and what it leaves to the next one."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

from etl.errors import Postponed
from etl.records import Checkpoint, Kept

if TYPE_CHECKING:
    from etl.records import Counts, Position

# Percent of rejected records above which a run fails, unless its source says otherwise.
DEFAULT_MAX_REJECTED = 50.0

# The share of rejected records is judged only when there are enough to mean something, and in mid-run when many are.
MIN_SHARED = 20
MIN_JUDGED = 1000

# What a run with rejected records failed of, or is partial of.
TOO_MANY = "too_many_rejected"
QUARANTINED = "records_rejected"
REJECTED = frozenset({TOO_MANY, QUARANTINED})


class Status(StrEnum):
    """What a run can be."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Stage(StrEnum):
    """What a run is at."""

    QUEUED = "queued"
    EXTRACTING = "extracting"
    WAITING = "waiting"
    LOADING = "loading"
    DELETING = "deleting"
    DONE = "done"


class BatchState(StrEnum):
    """What a batch is. One is halved when its workers die of it, and dropped when its run ends before it is loaded."""

    EXTRACTED = "extracted"
    NORMALIZED = "normalized"
    LOADED = "loaded"
    HALVED = "halved"
    DROPPED = "dropped"


class Trigger(StrEnum):
    """Who, or what, asked for a run."""

    SCHEDULE = "schedule"
    API = "api"
    CLI = "cli"
    REPLAY = "replay"
    REDRIVE = "redrive"
    BACKFILL = "backfill"
    UPGRADE = "upgrade"


class Lane(StrEnum):
    """Runs of a source that go on at the same time: one in each."""

    FETCH = "fetch"
    REPLAY = "replay"
    BACKFILL = "backfill"


# Errors that say "not now": a run that got nothing before one of them was skipped, not failed.
NOT_NOW: frozenset[str] = frozenset(Postponed)

ACTIVE = (Status.QUEUED, Status.RUNNING)
ENDED = tuple(status for status in Status if status not in ACTIVE)


@dataclass(frozen=True)
class Failure:
    """Why a run did not succeed."""

    code: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """The end of a run."""

    status: Status
    failure: Failure | None = None


@dataclass(frozen=True)
class RejectLimits:
    """How many new records may be rejected: in percent, or, where it is given, by number."""

    percent: float = DEFAULT_MAX_REJECTED
    records: int | None = None


@dataclass(frozen=True)
class Tally:
    """Where a running run stands. `failure` is what ended its extraction early.

    `may_lack_new` says that the run asked only for what is new, of a source that has served items: what is bad in it
    may be all there was. Of the failed records, `discarded` were put away by somebody: they are no reason to complain.
    `beside_backfill` says that one went on meanwhile, and may have changed what is served. `config` is the document of
    the source; `is_watched` says that something was wrong with it before.
    """

    extraction_over: bool
    open_batches: int
    counts: Counts
    failure: Failure | None
    max_rejected: RejectLimits
    position: Position
    lane: Lane = Lane.FETCH
    may_lack_new: bool = False
    discarded: int = 0
    beside_backfill: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    is_watched: bool = False

    def outcome(self) -> Outcome | None:
        """How the run ends, None when it goes on."""
        if self.counts.new >= MIN_JUDGED and over_limit(self.counts, self.max_rejected):
            return Outcome(Status.FAILED, too_many(self.counts, self.max_rejected))
        if self.extraction_over and not self.open_batches:
            return self._end()
        return None

    def _end(self) -> Outcome:
        """The end of a run whose extraction is over and whose batches are all closed."""
        counts = self.counts
        failed = counts.failed - self.discarded
        if failed and counts.failed >= counts.extracted and not self.may_lack_new:
            again = f", {counts.failed_again} of them as before" if counts.failed_again else ""
            return Outcome(Status.FAILED, Failure(TOO_MANY, f"all {counts.failed} records were rejected{again}"))
        if over_limit(counts, self.max_rejected):
            return Outcome(Status.FAILED, too_many(counts, self.max_rejected))
        if self.failure:
            nothing = Status.SKIPPED if self.failure.code in NOT_NOW else Status.FAILED
            return Outcome(Status.PARTIAL if counts.extracted else nothing, self.failure)
        if failed:
            return Outcome(Status.PARTIAL, Failure(QUARANTINED, quarantined(counts, self.lane)))
        return Outcome(Status.SUCCESS)

    @property
    def is_whole(self) -> bool:
        """Whether all of the source was met, and nothing left out because it is what it was."""
        return self.position.finished and not self.position.known

    def was_read(self, outcome: Outcome) -> bool:
        """Whether a run with this outcome has read its source to the end."""
        return self.lane is Lane.FETCH and outcome.status in {Status.SUCCESS, Status.PARTIAL} and not self.failure

    def fails(self, outcome: Outcome) -> bool:
        """Whether a run with this outcome says that something is wrong with its source: also one that broke off.

        And one that got nothing since its host is not asked for now. That a server wants to be asked later is no fault.
        """
        if outcome.status in {Status.PARTIAL, Status.SKIPPED}:
            failure = self.failure
            return failure is not None and (failure.code not in NOT_NOW or failure.code == Postponed.BY_BREAKER)
        return outcome.status is Status.FAILED


def over_limit(counts: Counts, most: RejectLimits) -> bool:
    """True when more records were rejected than may be: so many, or so many percent of enough new ones to tell.

    Of all new records, not of those settled so far: rejects are known earlier than loads. What was in quarantine and
    came again as it was is not counted.
    """
    if most.records is not None:
        return counts.newly_failed > most.records
    return counts.new >= MIN_SHARED and counts.newly_failed * 100 > counts.new * most.percent


def too_many(counts: Counts, most: RejectLimits) -> Failure:
    """The failure that says so."""
    limit = f"{most.percent:g} %" if most.records is None else f"{most.records} records"
    message = f"{counts.newly_failed} of {counts.new} new records were rejected; the limit is {limit}"
    return Failure(TOO_MANY, message)


def quarantined(counts: Counts, lane: Lane = Lane.FETCH) -> str:
    """How many records are in quarantine, newly or still."""
    met = "came again as they are in quarantine" if lane is Lane.FETCH else "still do not fit"
    again = f"{counts.failed_again} {met}" if counts.failed_again else ""
    newly = f"{counts.newly_failed} records were quarantined" if counts.newly_failed else ""
    return ", ".join(filter(None, (newly, again)))


class Marks(Enum):
    """What becomes of the marks by which an answer or a whole file is known to be unchanged."""

    KEPT = "kept"
    FORGOTTEN = "forgotten"


def left_behind(outcome: Outcome, tally: Tally) -> Checkpoint | Marks:
    """What the next run starts from: a new checkpoint, or the old one, with its marks or without.

    A run whose extraction broke off leaves the old one: pages that were not read may hold older cursor values. If it
    has stored something, it has changed what is served, and what the run before it knew of an answer or a whole file no
    longer says that nothing is new. The same holds for a backfill that has changed something.
    """
    position = tally.position
    if tally.was_read(outcome) and (position.watermark is not None or position.kept is not None):
        return _checkpoint(position, forgets=outcome.status is Status.PARTIAL or tally.beside_backfill)
    counts = tally.counts
    has_changed = {Lane.FETCH: counts.extracted, Lane.BACKFILL: counts.inserted + counts.updated}.get(tally.lane)
    return Marks.FORGOTTEN if has_changed else Marks.KEPT


def _checkpoint(position: Position, *, forgets: bool) -> Checkpoint:
    """The place where this run ended; `forgets` says that what is unchanged is not skipped next time.

    After rejects the source would look well again, and beside a backfill an older record of that would stand.

    Only the watermark and files that grow go on where they ended.
    """
    kept = position.kept or Kept()
    if forgets:
        kept = Kept(files={name: mark for name, mark in kept.files.items() if mark.appending})
    return Checkpoint(
        kind="watermark" if position.watermark is not None else "kept",
        config=position.config,
        mapping=position.mapping,
        watermark=position.watermark,
        kept=kept,
    )
