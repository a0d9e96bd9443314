"""What the sweeper does beside the runs: totals, partitions, a look at the raw ids, and at what is late."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from db.queries import changes, copies, freshness, marks, readers, retention, system, totals
from worker.rhythm import Rhythm

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings
    from db.session import Database

UPKEEP_SECONDS = 600.0
RAW_IDS_SECONDS = 60.0
LATENESS_SECONDS = 15.0

log = structlog.get_logger(__name__)


class Upkeep:
    """Steps that are taken in each pass, or now and then."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rhythm = Rhythm()
        self._has_older = False
        self._is_renumbering = False

    @property
    def steps(self) -> tuple[Callable[[Database], None], ...]:
        """All of them, in their order."""
        return (
            *(self.roll_up, self.recount, self.add_partitions),
            *(self.renumber_changes, self.check_raw_ids, self.renew_readers, self.judge_lateness, self.note_sizes),
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

    def check_raw_ids(self, database: Database) -> None:
        """Look for ids that were given twice, and for a sequence that lies behind."""
        look = database.transact(copies.look_for_copies)
        if look.copies:
            log.error("raw_ids_repeated", copies=look.copies)
        if self._rhythm.is_due("raw_ids", RAW_IDS_SECONDS) and database.transact(copies.advance_sequence):
            log.error("raw_ids_behind")

    def renumber_changes(self, database: Database) -> None:
        """After a restore into another cluster, put changes that lie ahead of its transactions among them."""
        if self._is_renumbering or self._rhythm.is_due("changes", RAW_IDS_SECONDS):
            database.transact(marks.forget_foreign)
            renumbered = database.transact(changes.renumber)
            self._is_renumbering = renumbered == changes.STEP
            if renumbered:
                log.warning("changes_renumbered", items=renumbered)

    def judge_lateness(self, database: Database) -> None:
        """Notice the sources that are late: also one of which there is no run."""
        if self._rhythm.is_due("lateness", LATENESS_SECONDS):
            late = database.transact(freshness.judge_lateness, is_scheduling=self._settings.enable_scheduler)
            for name in late:
                log.warning("source_late", source=name)

    def note_sizes(self, database: Database) -> None:
        """Note how large the tables are, about once an hour."""
        if self._rhythm.is_due("sizes", UPKEEP_SECONDS):
            database.transact(system.note_sizes)

    def renew_readers(self, database: Database) -> None:
        """Have what this release reads otherwise driven again."""
        if not self._has_older and not self._rhythm.is_due("readers", RAW_IDS_SECONDS):
            return
        renewed = database.transact(readers.renew_readers)
        self._has_older = renewed == readers.LIMIT
        if renewed:
            log.info("readers_renewed", sources=renewed)
