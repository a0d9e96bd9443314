"""One slice of extraction: claim the run, fetch and store batches, and act on how the slice ended."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, assert_never

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from db.queries.backfills import note_window
from db.queries.failures import give_back_run
from db.queries.polling_hints import note_gone, note_not_moved, note_poll, note_postponed
from db.queries.runs import claim_run, fail_extraction, release_run, resume_extraction
from db.queries.share import count_death, send_slow_runs
from etl import secrets
from etl.errors import (
    ETLError,
    LeaseLostError,
    Postponed,
    PostponedError,
    StorageError,
)
from etl.extract import open_source, target_for
from etl.extract.batching import Batcher
from etl.extract.context import Context
from etl.extract.windows import WindowsExtractor, source_of
from etl.http.call import Policy
from etl.http.client import HttpClient
from etl.mapping.mapper import Mapper
from etl.runs.backoff import wait_before
from etl.runs.messages import BatchMessage, ExtractMessage
from etl.runs.outcome import Lane
from etl.runs.polling import poll_result, settled_target
from etl.runs.replays import SLICE_SECONDS as LOW_SLICE_SECONDS
from etl.runs.slices import (
    AskedToWait,
    Deadline,
    Died,
    Failed,
    Finished,
    Gone,
    NotMoved,
    Pause,
    Yielded,
    after_batch,
    begin,
    cut_short,
    end_of,
)
from worker.batch_writer import BatchWriter
from worker.board import BOARD
from worker.closing import close
from worker.deleting import delete_missing
from worker.lease import Lease, SlowShare, elsewhere
from worker.replaying import make_batches
from worker.reporter import RunReporter
from worker.secret_values import secret_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from uuid import UUID

    from config.settings import Settings
    from etl.declare.source import AnySource
    from etl.extract import Extractor
    from etl.http.target import PreparedRequest
    from etl.runs.backfills import Window
    from etl.runs.messages import Message
    from etl.runs.polling import PollResult
    from etl.runs.slices import SliceEnd, Start
    from worker.process import Process, Publish

SLICE_SECONDS = 60.0
# A run whose records cannot be stored waits for so long: seconds.
STORAGE_PAUSE = 5.0

log = structlog.get_logger(__name__)


def extract(
    process: Process,
    run_id: UUID,
    publish: Publish,
    *,
    clock: Callable[[], float] = time.monotonic,
    slice_seconds: float = SLICE_SECONDS,
) -> None:
    """Extract one slice of a run; each batch is published as soon as it is committed.

    Args:
        process: what this process works with.
        run_id: the run; nothing happens when it is not to be had.
        publish: sends messages.
        clock: monotonic.
        slice_seconds: how long a slice may last.
    """
    database, settings = process.database, process.settings
    claim = database.transact(claim_run, run_id, process.name, process.lease_seconds, settings.worker_processes)
    if claim is None:
        return
    structlog.contextvars.bind_contextvars(source=claim.source_name, run_id=str(run_id))
    secrets.know({})
    slice_ = Slice(process, Lease(database, claim, process.lease_seconds, clock), publish, clock, slice_seconds)
    with slice_.lease.held():
        try:
            slice_.apply(slice_.work())
        except StorageError as error:
            slice_.give_back(error)
            raise
    close(database, run_id)
    if slice_.share.is_held:
        publish(list(database.transact(send_slow_runs)))


class Slice:
    """The work on a claimed run until its time is up, it has to wait, or the source ends."""

    def __init__(
        self, process: Process, lease: Lease, publish: Publish, clock: Callable[[], float], seconds: float
    ) -> None:
        self.lease = lease
        self.share = SlowShare(lease)
        self._process = process
        self._publish = publish
        most = seconds if lease.claim.lane is Lane.FETCH else min(seconds, LOW_SLICE_SECONDS)
        self._deadline = Deadline(clock() + self.share.pace.slice_seconds(most), clock)
        self._before = lease.claim
        self._reporter = RunReporter(lease, self.share, self._send, clock)
        self._is_fetched = lease.claim.lane is Lane.FETCH

    def work(self) -> SliceEnd:
        """Fetch and store batches until something ends the slice: what that is."""
        try:
            if self.lease.claim.lane is Lane.REPLAY:
                return make_batches(self.lease, self._send, self._deadline)
            return self._delete() or self._work(begin(self.lease.claim))
        except (LeaseLostError, StorageError):
            raise
        except SoftTimeLimitExceeded:
            log.warning("slice_too_long", attempt=self.lease.claim.attempt)
            return cut_short(self.lease.claim.attempt, progressed=self.lease.claim.batches > self._before.batches)
        except Exception as error:
            if not isinstance(error, ETLError | MemoryError):
                log.exception("extraction_defect")
            return end_of(error, self.lease.claim, self._process.settings.worker_memory)

    def give_back(self, error: StorageError) -> None:
        """The database failed: the run goes on later, and what the server lacks does not count against it."""
        claim = self.lease.claim
        wait = max(wait_before(claim.attempt, random.random()), STORAGE_PAUSE)  # noqa: S311 -- spread, not secrecy
        try:
            self.lease.transact(give_back_run, claim, wait, error.failure)
        except StorageError as again:
            log.warning("release_failed", reason=again.message)

    def _work(self, start: Start) -> SliceEnd:
        if start.is_outdated:
            self._reporter.warn("config_changed", "the source's settings have changed; it is read from its start")
        self.lease.begin(start.position)
        extractor = _open(start, self.lease, self._request, self._context(start))
        settings = self._process.settings
        mapper = Mapper(start.source, settings.max_record)
        writer = BatchWriter(self.lease, mapper, settings.worker_processes, ignores=bool(start.source.ignore))
        batcher = Batcher(mapper, settings.batch_size, self._deadline.is_over)
        for batch in batcher.batches(extractor.pages(start.position), start.position):
            stored = writer.write(batch, self._reporter.requests.take())
            if stored.batch_id is not None:
                self._send([BatchMessage(stored.batch_id, normalized=stored.normalized, low=not self._is_fetched)])
            if end := after_batch(batch.position, len(stored.open_batches), self._deadline):
                return end
        poll = self._poll(start.source)
        if poll and self.lease.claim.deletes_after(self.lease.claim.position):
            self.lease.transact(note_poll, self.lease.claim, poll)
        return self._delete() or Finished(poll)

    def _delete(self) -> SliceEnd | None:
        """Delete what a source that was read to its end did not give; None where nothing is to be deleted."""
        claim = self.lease.claim
        return delete_missing(self.lease, self._deadline) if claim.deletes_after(claim.position) else None

    def _send(self, messages: Sequence[Message]) -> None:
        with elsewhere():
            self._publish(list(messages))

    def _request(self, source: AnySource) -> PreparedRequest | None:
        """The first request of a source, None for files.

        Raises:
            PostponedError: its server has asked for a pause that is not over.
            ConfigError: a secret is missing.
        """
        if source.request is None:
            return None
        claim = self.lease.claim
        target = target_for(source, secret_values(source, self._process.settings))
        assert target is not None
        secrets.know(target.confidential)
        target = settled_target(target, claim.hints)
        if claim.postponed_for > 0:
            message = f"the server asked not to be called for another {claim.postponed_for:.0f} s"
            raise PostponedError(message, by=Postponed.SINCE_EARLIER, seconds=claim.postponed_for)
        return target

    def _context(self, start: Start) -> Context:
        settings = self._process.settings
        policy = Policy(settings.max_retries, settings.allowed_private_hosts, self._deadline.at)
        return Context(
            connect=partial(HttpClient, policy, self._process.limiter, self._reporter),
            reporter=self._reporter,
            scratch=_scratch(settings, self.lease.claim.run_id),
            roots=settings.csv_roots,
            base=settings.sources_file.parent,
            checkpoint=start.checkpoint,
            was_read=start.was_read,
            now=datetime.now(UTC),
        )

    def _poll(self, source: AnySource) -> PollResult | None:
        claim, heard = self.lease.claim, self._reporter.heard
        if heard is None:
            return None
        return poll_result(heard, claim.hints, claim.scheduled_for, honour_cache=source.honour_cache)

    def apply(self, end: SliceEnd) -> None:
        """Do what the end of the slice asks for: all that it leaves behind is written here."""
        self._reporter.requests.store()
        match end:
            case Finished(poll):
                if poll and self._is_fetched:
                    self.lease.transact(note_poll, self.lease.claim, poll)
            case Yielded():
                self.share.note(end.slowness)
                self._release(end)
            case Failed():
                self.share.note(end.slowness)
                self._remember(end)
                log.warning("extraction_failed", code=end.failure.code, message=end.failure.message)
                _clear_scratch(self._process.settings, self.lease.claim.run_id)
                self.lease.transact(fail_extraction, self.lease.claim, end.failure)
                BOARD.free()
            case _:
                assert_never(end)

    def _release(self, end: Yielded) -> None:
        """Give the run back. What waits for room may have it already: loaded while we still held the lease."""
        run_id = self.lease.claim.run_id
        goes_on = self.lease.transact(release_run, self.lease.claim, end)
        BOARD.free()
        if end.pause is Pause.ROOM:
            goes_on = self.lease.transact(resume_extraction, run_id)
        if goes_on:
            self._send([ExtractMessage(run_id, low=self.lease.claim.lane is not Lane.FETCH)])

    def _remember(self, end: Failed) -> None:
        """Note what the failure says of the source: what another lane meets says nothing."""
        if not self._is_fetched:
            return
        transact, claim = self.lease.transact, self.lease.claim
        match end.hint:
            case AskedToWait(seconds):
                transact(note_postponed, claim, seconds)
            case NotMoved():
                transact(note_not_moved, claim)
            case Gone(reason):
                transact(note_gone, claim, reason)
            case Died(cause):
                death = transact(count_death, claim.source_name, cause)
                log.warning("process_died", deaths=death.deaths, cause="memory")


def _open(
    start: Start, lease: Lease, request_of: Callable[[AnySource], PreparedRequest | None], context: Context
) -> Extractor:
    """What reads the source, or a range of its past."""
    span, run_id = lease.claim.span, lease.claim.run_id
    if span is None:
        return open_source(start.source, request_of(start.source), context)

    def open_window(window: Window) -> Extractor:
        source = source_of(start.source, window)
        return open_source(source, request_of(source), context)

    def note(number: int, window: Window, records: int, pages: int) -> None:
        detail = {"from": window.start, "to": window.end, "records": records, "pages": pages}
        lease.transact(note_window, run_id, number + 1, detail)

    return WindowsExtractor(span, open_window, note)


def _scratch(settings: Settings, run_id: UUID) -> Path:
    path = settings.state_dir / "downloads" / str(run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _clear_scratch(settings: Settings, run_id: UUID) -> None:
    """Local copies of a run that is over are of no use."""
    for path in (settings.state_dir / "downloads").glob(f"{run_id}*"):
        path.unlink(missing_ok=True)
