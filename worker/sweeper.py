"""The sweeper: a thread in every worker's main process and in beat that picks up what was dropped.

It needs PostgreSQL only. Any number of them work side by side; each takes the rows that no other has locked.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import structlog

from broker.messaging import BROKER_ERRORS, publish, queue_lengths
from broker.trouble import note_trouble
from db.queries import backfills, plans, processes, share, source_removal, sweep
from db.queries.clock import follow_clock
from db.session import Database
from etl.errors import StorageConflictError, StorageError, StorageTroubleError, StorageUnavailableError
from etl.runs.messages import QUEUES
from worker.alerting import Alerting
from worker.closing import close
from worker.outage import Outage
from worker.removal import Removal
from worker.rhythm import Rhythm
from worker.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from celery import Celery
    from sqlalchemy import Connection

    from config.settings import Settings

PAUSE = 2.0
# While there is more to send than is sent in a pass.
SHORT_PAUSE = 0.5
HEARTBEAT_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Sweeper(threading.Thread):
    """Sweeps every two seconds until stopped."""

    def __init__(
        self, app: Celery, settings: Settings, kind: str, name: str, processes: int, outage: Outage | None = None
    ) -> None:
        """`name` is what the process is known by in `etl_workers`; it has so many `processes` for tasks.

        `outage` is told when the database takes no writes, and when it takes them again.
        """
        super().__init__(name="sweeper", daemon=True)
        self._app = app
        self._settings = settings
        self._kind = kind
        self._process = name
        self._processes = processes
        self._stopped = threading.Event()
        self._rhythm = Rhythm()
        self._others = (*Upkeep(settings).steps, *Removal(settings).steps, *Alerting(settings).steps)
        self._outage = outage or Outage()
        self.has_more = False

    def stop(self) -> None:
        """Ask the thread to end after the pass it is in."""
        self._stopped.set()

    def run(self) -> None:
        """Sweep until stopped: a sweeper that ended by itself would leave runs stuck."""
        database = Database(self._settings.database_url, name=f"kasparro-sweeper-{self._kind}", pool_size=1, patience=0)
        steps = (self._show_alive, self._take_over, self._close_runs, self.publish_due, *self._others)
        while not self._stopped.is_set():
            for step in steps:
                self._guarded(step, database)
            pause = SHORT_PAUSE if self.has_more else PAUSE
            self._stopped.wait(pause * (0.75 + random.random() / 2))  # noqa: S311 -- spread, not secrecy
        self._leave(database)

    def _guarded(self, step: Callable[[Database], None], database: Database) -> None:
        """Whatever one step runs into, the others are done."""
        try:
            step(database)
        except StorageTroubleError as error:
            log.warning("sweep_postponed", step=step.__name__, reason=error.message)
            self._outage.note(error.message)
            note_trouble(self._app, error.message)
        except StorageUnavailableError as error:
            log.warning("sweep_postponed", step=step.__name__, reason=error.message)
            self._outage.note(error.message)
        except StorageError as error:
            log.warning("sweep_postponed", step=step.__name__, reason=error.message)
        except Exception:
            log.exception("sweep_defect", step=step.__name__)

    def _leave(self, database: Database) -> None:
        try:
            database.transact(processes.stop_heart, self._process)
        except StorageError as error:
            log.warning("farewell_lost", reason=error.message)
        database.close()

    def _show_alive(self, database: Database) -> None:
        if not self._rhythm.is_due("heartbeat", HEARTBEAT_SECONDS):
            return
        # First the clock: a heartbeat would hide that it was set back.
        if seconds := database.transact(follow_clock):
            log.error("clock_set_back", seconds=round(seconds))
        try:
            database.transact(processes.beat_heart, self._process, self._kind, self._processes)
        except StorageError as error:
            # Hardly anybody else writes there: it takes too long only where all does.
            self._outage.note(error.message)
            raise
        self._outage.end()

    def _take_over(self, database: Database) -> None:
        expired = database.transact(sweep.take_over_runs) + database.transact(sweep.take_over_batches)
        expired += each_run(database, sweep.worn_out_runs, give_up)
        each_run(database, source_removal.orphaned_runs, end_orphan)
        if expired:
            log.warning("leases_expired", count=expired)

    def _close_runs(self, database: Database) -> None:
        each_run(database, sweep.unclosed_runs, close)

    def publish_due(self, database: Database) -> None:
        """Mark what is due as sent, send it, and take the mark back where sending failed."""
        self.has_more = False
        try:
            lengths = queue_lengths(self._app)
        except BROKER_ERRORS as error:
            log.warning("broker_unreachable", error=str(error)[:200])
            return
        extracts, loads, lows = (lengths[queue] for queue in QUEUES)
        # Of thousands that were asked for at once some stand in the queue, and what comes meanwhile soon after them.
        runs = (
            database.transact(sweep.due_runs, queue_empty=extracts == 0, low_empty=lows == 0)
            if extracts < sweep.LIMIT
            else []
        )
        self.has_more = len(runs) == sweep.LIMIT or extracts >= sweep.LIMIT
        runs += database.transact(share.send_slow_runs)
        runs += database.transact(backfills.start_backfills)
        unsent_runs = publish(self._app, runs)
        if unsent_runs:
            database.transact(sweep.unsend_runs, unsent_runs)
        batches = database.transact(sweep.due_batches, queue_empty=loads == 0, low_empty=lows == 0)
        unsent_batches = publish(self._app, batches)
        if unsent_batches:
            database.transact(sweep.unsend_batches, unsent_batches)
        publish(self._app, database.transact(plans.due_plans))


def give_up(database: Database, run_id: UUID) -> bool:
    """End a run that is worn out; False when it is not any more."""
    return database.transact(sweep.give_up_run, run_id)


def end_orphan(database: Database, run_id: UUID) -> bool:
    """End a run without a source; False when it is none."""
    return database.transact(source_removal.end_orphan, run_id)


def each_run(
    database: Database, find: Callable[[Connection], list[UUID]], act: Callable[[Database, UUID], object]
) -> int:
    """Act on the runs that are found one by one; how many were acted on.

    Each has transactions of its own: one that is locked waits for the next pass, and keeps none of the others.
    """
    done = 0
    for run_id in database.read(find):
        try:
            done += bool(act(database, run_id))
        except StorageConflictError as error:
            log.warning("sweep_postponed", run_id=str(run_id), reason=error.message)
        except Exception:
            # Whatever is wrong with one must not keep all others from their end.
            log.exception("sweep_failed", run_id=str(run_id))
    return done
