"""What the sweeper does beside the runs: totals, partitions, retention, and a look at the raw ids."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog

from db.queries import copies, retention, totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings
    from db.session import Database

UPKEEP_SECONDS = 600.0
RAW_IDS_SECONDS = 60.0
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

    @property
    def steps(self) -> tuple[Callable[[Database], None], ...]:
        """All of them, in their order."""
        return (self.roll_up, self.recount, self.add_partitions, self.purge, self.check_raw_ids)

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
        """Remove old runs, and local copies that nobody came back for."""
        if not self._rhythm.is_due("purge", UPKEEP_SECONDS):
            return
        database.transact(retention.purge_runs, self._settings.runs_retention)
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
