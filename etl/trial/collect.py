"""The first records of a source, and what was met on the way to them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from etl.errors import ETLError, FetchError, WaitError
from etl.extract import open_source
from etl.records import Position
from etl.runs.outcome import Failure
from etl.runs.share import Pace
from etl.secrets import hide

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.declare.source import AnySource
    from etl.errors import RefusedError
    from etl.extract.context import Context
    from etl.http.target import PreparedRequest
    from etl.mapping.mapper import Mapper
    from etl.records import BadRecord, RawRecord
    from etl.reporter import Asked

MOST_WARNINGS = 20
MOST_REQUESTS = 100


@dataclass(frozen=True)
class Warned:
    """What an operator should know."""

    code: str
    message: str


class TrialReporter:
    """Collects what is reported, and ends the trial when its time is up."""

    has_stored = False
    pace = Pace()

    def __init__(self, ends: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`ends` is a reading of the monotonic clock."""
        self.warnings: list[Warned] = []
        self.requests: list[Asked] = []
        self._ends = ends
        self._clock = clock

    def alive(self) -> None:
        """Look at the clock.

        Raises:
            FetchError: the time is up.
        """
        if self._clock() > self._ends:
            raise FetchError("the trial took too long; what came in until then is shown", code="too_slow")

    def keep(self, seconds: float) -> None:
        """Nothing is held. The time may be up, or there were as many requests as may be.

        Raises:
            FetchError: so it is.
        """
        del seconds
        self.alive()
        if len(self.requests) >= MOST_REQUESTS:
            raise FetchError(f"a trial makes at most {MOST_REQUESTS} requests", code="too_many_requests")

    def may_go_on(self) -> bool:
        """A trial waits for nothing."""
        return False

    def warn(self, code: str, message: str) -> None:
        """Keep it."""
        if len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(Warned(code, hide(message)))

    def asked(self, request: Asked) -> None:
        """Keep it."""
        self.requests.append(request)

    def retrying(self, error: ETLError, tries: int, seconds: float) -> None:
        """A trial does not wait for another try."""

    def answered_after(self, seconds: float) -> None:
        """It says nothing of the source."""

    def answered(self, fresh: float, moved_to: str | None) -> None:
        """Tell where it has moved to."""
        del fresh
        if moved_to is not None:
            self.warn("moved", f"it has moved to {moved_to} for good")

    def keeps_quiet(self, hours: list[int], days: list[int], interval: float) -> None:
        """It says nothing of a trial."""


@dataclass
class Collected:
    """The first records of a source, those that cannot be kept, and how the reading ended.

    `has_more` says that it was left off, since there were enough; `failure` that it ended early.
    """

    records: list[RawRecord] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    pages: int = 0
    skipped: int = 0
    has_more: bool = False
    failure: Failure | None = None


def collect(
    source: AnySource, request: PreparedRequest | None, context: Context, mapper: Mapper, limit: int
) -> Collected:
    """Read at most `limit` records; an error ends it, with what came before."""
    found = Collected()
    try:
        for page in open_source(source, request, context).pages(Position()):
            found.pages += 1
            found.skipped += page.skipped
            records = iter(page.records)
            while (room := limit - len(found.records) - len(found.bad)) > 0:
                good, bad, skipped = mapper.take(islice(records, room))
                if not (good or bad or skipped):
                    break
                found.records += good
                found.bad += bad
                found.skipped += skipped
                context.reporter.alive()
            if room <= 0:
                found.has_more = page.following is not None or next(records, None) is not None
                break
    except WaitError as error:
        found.failure = _failure(error.cause)
    except ETLError as error:
        found.failure = _failure(error)
    return found


def _failure(error: ETLError | RefusedError) -> Failure:
    return Failure(error.code, error.message)
