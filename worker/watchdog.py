"""The watchdog: a thread in a worker's main process that frees its pool processes from what does not let go.

A process that computes cannot be asked to stop: it is killed, and Celery starts another one in its place. Killed is who
has lost its claim (the run was cancelled, or someone else has taken it over), who is late to look at it, and who uses
more memory than it may. Who died, by itself or for the latter two, died of its source.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from broker.messaging import publish
from db.queries import share
from db.session import Database
from etl.errors import StorageError
from worker.board import RUN

if TYPE_CHECKING:
    from uuid import UUID

    from celery import Celery

    from config.settings import Settings
    from worker.board import Board, Held

PAUSE = 1.0
# Who looks at its claim finds out by itself that it is lost: seconds that it is left for that.
GRACE = 3.0
# After this much more than a pause this process itself stood still, and so did the others: seconds.
STOOD_STILL = 2.0
# Memory beyond the limit is refused to the process; a little may be shared or rounded.
MEMORY_MARGIN = 1.1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

log = structlog.get_logger(__name__)


class Watchdog(threading.Thread):
    """Looks once a second until stopped."""

    def __init__(self, app: Celery, settings: Settings, board: Board) -> None:
        """Nothing is connected yet."""
        super().__init__(name="watchdog", daemon=True)
        self._app = app
        self._settings = settings
        self._board = board
        self._stopped = threading.Event()
        self._lost: dict[tuple[int, UUID, int], float] = {}
        self._forgive_until = 0.0
        self._killed = False

    def stop(self) -> None:
        """Ask the thread to end: from now on processes die because the worker ends."""
        self._stopped.set()

    def run(self) -> None:
        """Watch until stopped."""
        database = Database(self._settings.database_url, name="kasparro-watchdog", pool_size=1, patience=0)
        before = time.monotonic()
        while not self._stopped.is_set():
            self._stopped.wait(PAUSE)
            now = time.monotonic()
            if now - before > PAUSE + STOOD_STILL:
                self._forgive_until = now + 2 * (now - before)
            before = now
            if not self._stopped.is_set():
                self._guarded(database, now)
        database.close()

    def _guarded(self, database: Database, now: float) -> None:
        try:
            self._look(database, now)
        except StorageError as error:
            log.warning("watch_postponed", reason=error.message)
        except Exception:
            log.exception("watch_defect")

    def _look(self, database: Database, now: float) -> None:
        held = list(self._board.held())
        dead = [one for one in held if not _is_alive(one.process_id)]
        for one in dead:
            self._blame(database, one, "it ended by a signal")
            self._board.clear(one)
        living = [one for one in held if one not in dead]
        for one in living:
            if (cause := self._cause(one, now)) and self._kill(one, cause):
                self._blame(database, one, cause)
                self._board.clear(one)
        self._kill_lost(database, living, now)
        if self._killed:
            # The place is free for a run of another slow source.
            self._killed = False
            publish(self._app, database.transact(share.send_slow_runs))

    def _cause(self, held: Held, now: float) -> str | None:
        """Why a process must not go on, if so."""
        limit = self._settings.worker_memory
        if _resident(held.process_id) > limit * MEMORY_MARGIN:
            return f"it used more than {limit // 2**20} MiB of memory"
        if now > held.looks_by and now > self._forgive_until:
            return f"it computed for {now - held.since:.0f} s without an end"
        return None

    def _kill_lost(self, database: Database, held: list[Held], now: float) -> None:
        """Kill who has lost its claim and does not notice."""
        runs = [one for one in held if one.kind == RUN]
        batches = [one for one in held if one.kind != RUN]
        lost_runs = database.read(share.lost_runs, [(one.key, one.token) for one in runs])
        lost_batches = database.read(share.lost_batches, [(one.batch_id, one.token) for one in batches])
        lost = [one for one in runs if (one.key, one.token) in lost_runs]
        lost += [one for one in batches if (one.batch_id, one.token) in lost_batches]
        self._lost = {one.claim: self._lost.get(one.claim, now) for one in lost}
        for one in lost:
            if now - self._lost[one.claim] > GRACE and self._kill(one, "its claim was lost"):
                self._board.clear(one)

    def _kill(self, held: Held, cause: str) -> bool:
        # It may have ended and freed its place since it was read.
        late = time.monotonic() > held.looks_by
        same = [one for one in self._board.held() if one.claim == held.claim]
        if not same or (late and same[0].looks_by != held.looks_by):
            return False
        self._killed = True
        log.warning("process_killed", process_id=held.process_id, cause=cause, key=str(held.key))
        with suppress(ProcessLookupError):
            os.kill(held.process_id, signal.SIGKILL)
        return True

    @staticmethod
    def _blame(database: Database, held: Held, cause: str) -> None:
        """A batch is halved until the record is found; a run's source is set aside when it goes on like that."""
        if held.kind != RUN:
            return
        death = database.transact(share.note_death, held.key, held.token, cause)
        if death is not None:
            log.warning("process_died", source=death.source_name, deaths=death.deaths, cause=cause)


def _is_alive(process_id: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for yet does not."""
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


def _resident(process_id: int) -> int:
    """The memory of a process in bytes, 0 when it is gone."""
    try:
        return int(Path(f"/proc/{process_id}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0
