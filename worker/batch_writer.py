"""A batch on its way into the database: what is known of it is left out, the rest is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from msgspec.structs import replace

from db.queries.erasures import find_erased
from db.queries.extraction import Stored, find_in_flight, find_known, store_batch
from etl.errors import ExpectationError
from etl.mapping.observe import map_records
from etl.records import StoredRecord
from etl.runs.changes import Changes, candidates, changed_records, without_erased
from etl.runs.drift import Policy

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from etl.mapping.mapper import Mapper
    from etl.records import Mapped, RawBatch, RawRecord
    from etl.reporter import Asked
    from etl.runs.changes import InFlightIds
    from worker.lease import Lease

log = structlog.get_logger(__name__)


class BatchWriter:
    """Stores the batches of one slice."""

    def __init__(self, lease: Lease, mapper: Mapper, processes: int, *, ignores: bool) -> None:
        """`processes` is how many there are to load batches; `ignores` says that the source leaves out keys."""
        self._ignores = ignores
        self._lease = lease
        self._mapper = mapper
        self._processes = processes
        self._in_flight: InFlightIds | None = None

    def write(self, batch: RawBatch, asked: list[Asked]) -> Stored:
        """Store what of a batch has changed, with the requests that were made since the last one.

        Mapping takes its time while no transaction is open.
        """
        lease = self._lease
        changes = self._changes(batch) if batch.extracted else Changes([], [])
        staged = self._normalize(changes.records) if changes.records and self._backlog_is_long() else None
        stored = lease.transact(store_batch, lease.claim, batch, changes, lease.seconds, staged, asked)
        if self._in_flight is not None:
            self._in_flight.stored(lease.claim.batches, batch, stored.open_batches)
        lease.advance(batch, stored)
        return stored

    def _changes(self, batch: RawBatch) -> Changes:
        claim = self._lease.claim
        if self._in_flight is None:
            self._in_flight = self._lease.read(find_in_flight, claim)
        return self._lease.read(self._compare, batch, self._in_flight)

    def _compare(self, connection: Connection, batch: RawBatch, in_flight: InFlightIds) -> Changes:
        claim = self._lease.claim
        ids = [record.external_id for record in batch.records if record.external_id is not None]
        kept, erased = without_erased(batch, find_erased(connection, claim.source_name, ids))
        found = candidates(kept, in_flight, ignores=self._ignores)
        changes = changed_records(found, find_known(connection, claim, found))
        if claim.keeps_existing:
            # What is left alone says nothing of what stands in quarantine.
            changes = replace(changes, reverted=(), identified=())
        if not erased:
            return changes
        return replace(changes, failed_again=changes.failed_again + erased, discarded=changes.discarded + erased)

    def _backlog_is_long(self) -> bool:
        """Whether it is quicker to normalise here than to have another process read the rows back.

        Never after a slice that got nowhere: normalise can halve a batch, and so finds a record that kills its worker.
        Nor where what has changed its shape is not let through, which normalise finds.
        """
        claim = self._lease.claim
        is_looked_at = Policy.of(claim.config) is not Policy.REPORT
        return claim.attempt <= 1 and len(claim.open_batches) >= self._processes and not is_looked_at

    def _normalize(self, records: list[RawRecord]) -> Mapped | None:
        """None for a defect of ours: it is to cost a record and not the run, and the task can find out which."""
        unnumbered = [
            StoredRecord(place, "", record.external_id, record.content_hash, record.payload.decode())
            for place, record in enumerate(records)
        ]
        try:
            return map_records(self._mapper, unnumbered)
        except SoftTimeLimitExceeded:
            raise
        except ExpectationError:
            # Whoever normalises the batch fails the run.
            return None
        except Exception:
            log.exception("mapping_defect")
            return None
