"""What an extractor and its HTTP client report on the way, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from db.queries.events import record_event
from db.queries.share import send_slow_runs
from etl.runs.polling import Heard
from etl.runs.schedule import QuietHours
from etl.secrets import hide
from worker.request_log import RequestLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from etl.errors import ETLError
    from etl.reporter import Asked
    from etl.runs.share import Pace
    from worker.lease import Lease, SlowShare
    from worker.process import Publish

MAX_WARNINGS = 20
# While work goes on, the lease is renewed this often: seconds.
ALIVE_EVERY = 1.0

log = structlog.get_logger(__name__)


class RunReporter:
    """Keeps the lease, puts warnings and retries on the run's record, and collects what the server said."""

    def __init__(self, lease: Lease, share: SlowShare, publish: Publish, clock: Callable[[], float]) -> None:
        """`clock` is monotonic."""
        self.heard: Heard | None = None
        self.requests = RequestLog(lease)
        self._lease = lease
        self._share = share
        self._publish = publish
        self._clock = clock
        self._warnings = 0
        self._checked = clock()

    @property
    def has_stored(self) -> bool:
        """Whether the run has stored a batch."""
        return self._lease.claim.batches > 0

    @property
    def pace(self) -> Pace:
        """How patient an attempt may be."""
        return self._share.pace

    def keep(self, seconds: float) -> None:
        """Keep the lease for so long."""
        self._lease.keep(seconds)

    def may_go_on(self) -> bool:
        """Whether the share of slow sources has room for a download that outlasts its slice."""
        return self._share.enter()

    def warn(self, code: str, message: str) -> None:
        """Log it, and put it on the run's record; a flood of them is cut off."""
        message = hide(message)
        log.warning("source_warning", code=code, message=message)
        self._warnings += 1
        if self._warnings <= MAX_WARNINGS:
            detail = {"code": code, "message": message[:500]}
            self._lease.transact(record_event, self._lease.claim.run_id, "warning", **detail)

    def alive(self) -> None:
        """Now and then, renew the lease."""
        now = self._clock()
        if now - self._checked > ALIVE_EVERY:
            self._checked = now
            self._lease.keep(ALIVE_EVERY)

    def answered(self, fresh: float, moved_to: str | None) -> None:
        """Keep what an answer said."""
        self.heard = self.heard.and_then(fresh, moved_to) if self.heard else Heard(fresh, moved_to)

    def keeps_quiet(self, hours: list[int], days: list[int], interval: float) -> None:
        """Keep the quiet hours, which come with an answer."""
        assert self.heard is not None
        self.heard = replace(self.heard, quiet=QuietHours(hours, days, interval))

    def asked(self, request: Asked) -> None:
        """Keep what was asked."""
        self.requests.add(request)

    def retrying(self, error: ETLError, tries: int, seconds: float) -> None:
        """Put it on the run's record."""
        detail = {"code": error.code, "message": error.message, "tries": tries, "wait": round(seconds, 1)}
        log.warning("retry", **detail)
        self._lease.transact(record_event, self._lease.claim.run_id, "retry", **detail)

    def answered_after(self, seconds: float) -> None:
        """A source that answers in time leaves the share of slow ones, and makes room there for another."""
        if self._share.answered(seconds):
            self._publish(list(self._lease.transact(send_slow_runs)))
