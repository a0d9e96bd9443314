"""Beat's scheduler: it claims due slots in PostgreSQL and sends one extraction each. Any number of beats may run."""

from __future__ import annotations

from typing import Any

import structlog
from celery.beat import Scheduler

from broker.messaging import publish
from config import settings
from db.queries.slots import CLAIMED_AT_ONCE, claim_slots, seconds_to_next
from db.session import Database
from etl.errors import StorageError
from etl.runs.messages import ExtractMessage

LONGEST_SLEEP = 5.0
SHORTEST_SLEEP = 0.5

log = structlog.get_logger(__name__)


class SlotScheduler(Scheduler):
    """Replaces Celery's own table of periodic tasks: the schedule is in `sources`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Beat makes the scheduler in the process it runs in."""
        current = settings.load_connected()
        self._enabled = current.enable_scheduler
        self._database = Database(current.database_url, name="kasparro-beat", pool_size=1, patience=0)
        super().__init__(*args, **kwargs)
        if not self._enabled:
            log.info("scheduler_disabled", reason="ENABLE_SCHEDULER is false")

    def setup_schedule(self) -> None:
        """Nothing is kept here."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Claim and send what is due; seconds until the next look."""
        del args, kwargs
        if not self._enabled:
            return LONGEST_SLEEP
        try:
            runs, claimed = self._database.transact(claim_slots)
        except StorageError as error:
            log.warning("tick_postponed", reason=error.message)
            return SHORTEST_SLEEP
        publish(self.app, [ExtractMessage(run_id) for run_id in runs])
        if claimed:
            log.info("slots_claimed", slots=claimed, runs=len(runs))
        return 0.0 if claimed == CLAIMED_AT_ONCE else min(self._pause(), LONGEST_SLEEP)

    def _pause(self) -> float:
        """Until the next slot, so that runs start on time; an edit acts at the latest after five seconds."""
        try:
            wait = self._database.transact(seconds_to_next)
        except StorageError:
            return SHORTEST_SLEEP
        return LONGEST_SLEEP if wait is None else max(wait, SHORTEST_SLEEP / 10)

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()
