"""What the sweeper removes: old runs, what they left behind, and what somebody wants to be forgotten."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from db.queries import (
    answers,
    audit,
    deletions,
    erasures,
    exports,
    marks,
    outbox,
    plans,
    quarantine,
    retention,
    sessions,
    source_removal,
    versions,
)
from worker.rhythm import Rhythm

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings
    from db.session import Database

PLANS_RETENTION = timedelta(days=1)
# How often old runs are looked for, and how much of a pass may go into removing them.
LOOK_FOR_OLD_SECONDS = 10.0
PURGE_SECONDS = 0.2
MOST_PURGED = 1000
MOST_FORGOTTEN = 20_000
# A step that takes longer was too large: beside work each takes some tenths of a second.
LONG_STEP = 1.0
LOOK_FOR_VERSIONS_SECONDS = 600.0
LOOK_FOR_DOWNLOADS_SECONDS = 600.0
OLD_DOWNLOAD_SECONDS = 86_400.0


class Removal:
    """Steps that are taken in each pass, or now and then."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rhythm = Rhythm()
        self._is_purging = False
        self._is_forgetting = False
        self._purged_at_once = MOST_PURGED

    @property
    def steps(self) -> tuple[Callable[[Database], None], ...]:
        """All of them, in their order."""
        return (
            self.purge,
            self.forget_seen,
            self.forget_callers,
            self.forget_versions,
            self.erase,
            self.empty_sources,
            self.remove_downloads,
        )

    def purge(self, database: Database) -> None:
        """Remove old runs, as many as a part of each pass allows for."""
        if not self._is_purging and not self._rhythm.is_due("purge", LOOK_FOR_OLD_SECONDS):
            return
        ends = time.monotonic() + PURGE_SECONDS
        self._is_purging = True
        database.transact(plans.purge_plans, PLANS_RETENTION)
        while self._is_purging and time.monotonic() < ends:
            self._is_purging = self._purge_some(database)

    def _purge_some(self, database: Database) -> bool:
        """One step; whether there is more. Its size is what can be done briefly: some runs have very many batches."""
        size, started = self._purged_at_once, time.monotonic()
        # If this fails, fewer are tried next.
        self._purged_at_once = max(1, size // 8)
        removed = database.transact(retention.purge_runs, self._settings.runs_retention, size)
        took = time.monotonic() - started
        self._purged_at_once = min(MOST_PURGED, 2 * size) if took < LONG_STEP else max(1, size // 2)
        return removed == size

    def forget_seen(self, database: Database) -> None:
        """Remove the ids that runs which are over have met: some in each pass, until none are left."""
        if self._is_forgetting or self._rhythm.is_due("seen", LOOK_FOR_OLD_SECONDS):
            self._is_forgetting = database.transact(deletions.forget_seen, MOST_FORGOTTEN) == MOST_FORGOTTEN

    def forget_callers(self, database: Database) -> None:
        """Remove old answers, and old records of writes: some now and then, more than are made meanwhile."""
        if self._rhythm.is_due("callers", LOOK_FOR_OLD_SECONDS):
            database.transact(answers.purge_answers, MOST_FORGOTTEN)
            database.transact(sessions.purge_sessions, MOST_FORGOTTEN)
            database.transact(exports.purge_exports)
            database.transact(outbox.purge_alerts, self._settings.alerts_retention, MOST_FORGOTTEN)
            database.transact(marks.purge_marks, self._settings.deleted_retention, MOST_FORGOTTEN)
            database.transact(audit.purge_writes, self._settings.audit_retention, MOST_FORGOTTEN)

    def forget_versions(self, database: Database) -> None:
        """Remove old versions of sources, and records that were rejected long ago and are settled."""
        if self._rhythm.is_due("versions", LOOK_FOR_VERSIONS_SECONDS):
            database.transact(versions.purge_versions, self._settings.audit_retention, MOST_FORGOTTEN)
        if self._rhythm.is_due("cases", LOOK_FOR_OLD_SECONDS):
            database.transact(quarantine.purge_cases, self._settings.cases_retention, MOST_PURGED)

    def erase(self, database: Database) -> None:
        """Erase what was asked for, as much as a part of each pass allows for."""
        ends = time.monotonic() + PURGE_SECONDS
        while time.monotonic() < ends and database.transact(erasures.erase_some):
            pass

    def empty_sources(self, database: Database) -> None:
        """Delete the items of sources that were deleted with them, and remove those of long ago."""
        ends = time.monotonic() + PURGE_SECONDS
        while time.monotonic() < ends and database.transact(source_removal.empty_some):
            pass
        if self._rhythm.is_due("removed", LOOK_FOR_OLD_SECONDS):
            database.transact(source_removal.remove_some, self._settings.deleted_retention)

    def remove_downloads(self, _: Database) -> None:
        """Remove local copies that nobody came back for."""
        if not self._rhythm.is_due("downloads", LOOK_FOR_DOWNLOADS_SECONDS):
            return
        for path in (self._settings.state_dir / "downloads").glob("*"):
            if time.time() - path.stat().st_mtime > OLD_DOWNLOAD_SECONDS:
                path.unlink(missing_ok=True)
