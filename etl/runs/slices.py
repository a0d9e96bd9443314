"""Slices of extraction: how one ends, decided from what happened in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from etl.declare.source import fingerprint, parse
from etl.errors import (
    ETLError,
    NoAnswerError,
    Postponed,
    PostponedError,
    RefusedError,
    SliceOverError,
    WaitError,
)
from etl.records import Checkpoint, Position
from etl.runs.backfills import Existing
from etl.runs.outcome import Failure, Lane
from etl.runs.replays import EVERYTHING, Scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from etl.declare.source import AnySource
    from etl.runs.backfills import Span
    from etl.runs.polling import PollResult, ServerHints

# A run with so many open batches waits until half of them are loaded.
MAX_OPEN_BATCHES = 8
# Claims without progress after which a run is given up.
MAX_RUN_ATTEMPTS = 5


@dataclass(frozen=True)
class RunClaim:
    """A claimed run: everything a slice needs to know, and the token that fences its writes.

    `postponed_for` is the rest of a pause that the server asked for, in seconds. `slow` says that the slice counts
    among those of slow sources, `misses` how often the source has not answered in time since it `answered`, `alone`
    that there is only one worker process.
    """

    run_id: UUID
    source_name: str
    source_type: str
    token: int
    attempt: int
    batches: int
    open_batches: frozenset[int]
    position: Position
    checkpoint: dict[str, Any]
    config: dict[str, Any]
    mapping_version: int
    mapped_since: int
    hints: ServerHints
    lane: Lane = Lane.FETCH
    scope: Scope = EVERYTHING
    span: Span | None = None
    scheduled_for: datetime | None = None
    postponed_for: float = 0.0
    slow: bool = False
    answered: bool = True
    misses: int = 0
    deaths: int = 0
    alone: bool = False

    @property
    def is_snapshot(self) -> bool:
        """Whether the run reads all that its source has, so that what it does not meet is gone."""
        return self.lane is Lane.FETCH and bool(self.config.get("full_snapshot"))

    @property
    def keeps_existing(self) -> bool:
        """Whether records whose ids are there already are left alone."""
        return self.span is not None and self.span.existing is Existing.KEEP

    def deletes_after(self, position: Position) -> bool:
        """Whether, at a position, all was read, and what was not met is to be deleted."""
        return self.is_snapshot and position.finished and not position.known


@dataclass(frozen=True)
class Deadline:
    """When a slice's time is up, by a monotonic clock."""

    at: float
    clock: Callable[[], float]

    def is_over(self) -> bool:
        """Whether it is."""
        return self.clock() > self.at


@dataclass(frozen=True)
class Start:
    """What a slice begins with: the source, where to read it from, and what the last run left for it.

    `is_outdated` says that the source has to be read from its start because it is declared differently by now,
    `was_read` that a run before has read it as it is declared now, however its records were mapped.
    """

    source: AnySource
    position: Position
    checkpoint: Checkpoint
    is_outdated: bool
    was_read: bool = False


def begin(claim: RunClaim) -> Start:
    """The run's position, or the checkpoint, as far as they belong to the source as it is declared now.

    Raises:
        ConfigError: the source cannot be read.
    """
    source, position = parse(claim.config), claim.position
    config = fingerprint(source)
    before = msgspec.convert(claim.checkpoint, Checkpoint)
    if position.config != config:
        watermark = before.watermark if before.config == config else None
        position = Position(config=config, mapping=claim.mapped_since, watermark=watermark)
    is_outdated = claim.position.config != config and bool(claim.position.config or before.config not in {"", config})
    is_good = (before.config, before.mapping) == (config, claim.mapped_since)
    return Start(source, position, before if is_good else Checkpoint(), is_outdated, before.config == config)


class Slowness(StrEnum):
    """What a slice has shown of its source's slowness."""

    MISSED = "missed"  # it did not answer in time
    LASTING = "lasting"  # its answer lasts longer than a slice


class Pause(StrEnum):
    """Why a slice gives its run back before the source has ended."""

    TIME = "time"
    ROOM = "room"
    WAIT = "wait"


@dataclass(frozen=True)
class AskedToWait:
    """The server asked for a pause that is too long for a run."""

    seconds: float


@dataclass(frozen=True)
class NotMoved:
    """The address that the source had moved to does not serve it."""


@dataclass(frozen=True)
class Gone:
    """The server said that there will be no more."""

    reason: str


@dataclass(frozen=True)
class Died:
    """A process would have died of the source."""

    cause: str


@dataclass(frozen=True)
class Finished:
    """The source was read to its end; what its server said is to be noted, if anything."""

    poll: PollResult | None = None


@dataclass(frozen=True)
class Yielded:
    """The run goes on in another slice: at once, when there is room, or after so many seconds.

    `progressed` says that the slice does not count as an attempt that got nowhere. `position` replaces the run's.
    """

    pause: Pause
    seconds: float = 0.0
    position: Position | None = None
    progressed: bool = True
    slowness: Slowness | None = None


@dataclass(frozen=True)
class Failed:
    """The extraction is over, and what it has shown of the source is to be remembered."""

    failure: Failure
    hint: AskedToWait | NotMoved | Gone | Died | None = None
    slowness: Slowness | None = None


SliceEnd = Finished | Yielded | Failed


def after_batch(position: Position, open_batches: int, deadline: Deadline) -> Yielded | None:
    """Whether the slice ends before its source, with the batch that was stored just now; None to go on."""
    if position.finished:
        return None
    if open_batches >= MAX_OPEN_BATCHES:
        return Yielded(Pause.ROOM)
    return Yielded(Pause.TIME) if deadline.is_over() else None


def end_of(error: Exception, claim: RunClaim, memory: int) -> Yielded | Failed:
    """How a slice ends that an error ended.

    Args:
        error: anything but a lost lease or a database that is away.
        claim: as it stands after the last batch, or at the start.
        memory: what a worker process may use, in bytes.
    """
    match error:
        case WaitError():
            slowness = _slowness(error.cause)
            waiting = replace(claim.position, tries=error.tries)
            return Yielded(Pause.WAIT, error.seconds, waiting, slowness=slowness)
        case PostponedError() if claim.lane is Lane.BACKFILL and error.code == Postponed.SINCE_EARLIER:
            # What its source's usual runs were asked for ends no range in the middle.
            return Yielded(Pause.WAIT, error.seconds)
        case ETLError():
            return Failed(Failure(error.code, error.message), _hint(error, claim), _slowness(error))
        case MemoryError():
            limit = f"{memory // 2**20} MiB"
            message = f"its records need more memory than a worker process may use ({limit})"
            return Failed(Failure("out_of_memory", message), Died(f"it needed more than {limit}"))
    # A defect of ours must not look like a dead worker that is worth five more tries.
    message = f"{type(error).__name__} in the extractor; the log has the details"
    return Failed(Failure("internal_error", message))


def cut_short(attempt: int, *, progressed: bool) -> Yielded | Failed:
    """The time limit of a task ended the slice: again, unless it got nowhere several times in a row."""
    if not progressed and attempt >= MAX_RUN_ATTEMPTS:
        message = "fetching or unpacking took longer than a task may, several times in a row"
        return Failed(Failure("too_slow", message))
    return Yielded(Pause.TIME, progressed=progressed)


def _hint(error: ETLError, claim: RunClaim) -> AskedToWait | NotMoved | Gone | None:
    if isinstance(error, PostponedError):
        return AskedToWait(error.seconds) if error.by is Postponed.BY_SERVER else None
    if claim.hints.new_address:
        return NotMoved()
    is_gone = isinstance(error, RefusedError) and error.status == HTTPStatus.GONE
    if is_gone and claim.position.cursor is None:
        return Gone(error.message)
    return None


def _slowness(error: ETLError) -> Slowness | None:
    if isinstance(error, NoAnswerError):
        return Slowness.MISSED
    return Slowness.LASTING if isinstance(error, SliceOverError) else None
