"""What the sweeper does beside the runs: totals, partitions, retention, and a look at the raw ids."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from db.queries import copies, deletions, erasures, plans, readers, retention, totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings
    from db.session import Database

UPKEEP_SECONDS = 600.0
PLANS_RETENTION = timedelta(days=1)
RAW_IDS_SECONDS = 60.0
# How often old runs are looked for, and how much of a pass may go into removing them.
LOOK_FOR_OLD_SECONDS = 10.0
PURGE_SECONDS = 0.2
MOST_PURGED = 1000
MOST_FORGOTTEN = 20_000
# A step that takes longer was too large: beside work each takes some tenths of a second.
LONG_STEP = 1.0
OLD_DOWNLOAD_SECONDS = 86_400.0

log = structlog.get_logger(__name__)


class Rhythm:
    """When something was done last."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def is_due(self, what: str, every: float) -> bool:
        """Whether it was not for so many seconds; then it counts as done now."""
        now = time.monotonic()
        if now - self._last.get(what, -every) < every:
            return False
        self._last[what] = now
        return True


class Upkeep:
    """Steps that are taken in each pass, or now and then."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rhythm = Rhythm()
        self._is_purging = False
        self._has_older = False
        self._is_forgetting = False
        self._purged_at_once = MOST_PURGED

    @property
    def steps(self) -> tuple[Callable[[Database], None], ...]:
        """All of them, in their order."""
        return (
            *(self.roll_up, self.recount, self.add_partitions, self.purge),
            *(self.remove_downloads, self.check_raw_ids, self.renew_readers, self.forget_seen, self.erase),
        )

    def roll_up(self, database: Database) -> None:
        """Add what is finished to the totals."""
        database.transact(totals.roll_up)

    def recount(self, database: Database) -> None:
        """Count the totals anew."""
        if self._rhythm.is_due("recount", UPKEEP_SECONDS):
            database.transact(totals.recount)

    def add_partitions(self, database: Database) -> None:
        """Make room for the raw records of the next months."""
        if self._rhythm.is_due("partitions", UPKEEP_SECONDS):
            database.transact(retention.add_partitions)

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

    def remove_downloads(self, _: Database) -> None:
        """Remove local copies that nobody came back for."""
        if not self._rhythm.is_due("downloads", UPKEEP_SECONDS):
            return
        for path in (self._settings.state_dir / "downloads").glob("*"):
            if time.time() - path.stat().st_mtime > OLD_DOWNLOAD_SECONDS:
                path.unlink(missing_ok=True)

    def check_raw_ids(self, database: Database) -> None:
        """Look for ids that were given twice, and for a sequence that lies behind."""
        look = database.transact(copies.look_for_copies)
        if look.copies:
            log.error("raw_ids_repeated", copies=look.copies)
        if self._rhythm.is_due("raw_ids", RAW_IDS_SECONDS) and database.transact(copies.advance_sequence):
            log.error("raw_ids_behind")

    def forget_seen(self, database: Database) -> None:
        """Remove the ids that runs which are over have met: some in each pass, until none are left."""
        if self._is_forgetting or self._rhythm.is_due("seen", LOOK_FOR_OLD_SECONDS):
            self._is_forgetting = database.transact(deletions.forget_seen, MOST_FORGOTTEN) == MOST_FORGOTTEN

    def erase(self, database: Database) -> None:
        """Erase what was asked for, as much as a part of each pass allows for."""
        ends = time.monotonic() + PURGE_SECONDS
        while time.monotonic() < ends and database.transact(erasures.erase_some):
            pass

    def renew_readers(self, database: Database) -> None:
        """Have what this release reads otherwise driven again."""
        if not self._has_older and not self._rhythm.is_due("readers", RAW_IDS_SECONDS):
            return
        renewed = database.transact(readers.renew_readers)
        self._has_older = renewed == readers.LIMIT
        if renewed:
            log.info("readers_renewed", sources=renewed)
