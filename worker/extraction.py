"""One slice of extraction: claim the run, fetch and store batches, give the run back or close it."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import msgspec
import structlog
from celery.exceptions import SoftTimeLimitExceeded

from db.queries.closing import close_run
from db.queries.events import record_event
from db.queries.extraction import Compared, Stored, compare, find_pending, store_batch
from db.queries.manners import note_gone, note_not_moved, note_poll, note_postponed
from db.queries.runs import (
    MAX_ATTEMPTS,
    MAX_OPEN_BATCHES,
    RunClaim,
    claim_run,
    fail_extraction,
    release_run,
    renew_run,
    resume_extraction,
)
from db.queries.share import Death, count_death, enter_share, mark_slow, note_answer, note_miss, send_slow_runs
from etl import source as declared
from etl.errors import (
    ConfigError,
    ETLError,
    LeaseLostError,
    PostponedError,
    StorageConflictError,
    StorageUnavailableError,
    WaitError,
)
from etl.extract import open_source, target_for
from etl.extract.batching import Batcher
from etl.extract.context import Context
from etl.http.client import HttpClient, Policy, Watch
from etl.mapping import Mapper
from etl.messages import BatchMessage, ExtractMessage
from etl.outcome import Failure
from etl.records import Checkpoint, Position, Sifted
from etl.share import QUICK_ANSWER, Pace
from worker.board import BOARD, RUN
from worker.polling import ALIVE_SECONDS, MOVED_AFTER, Hearing, settled_target
from worker.process import gate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from db.session import Database
    from etl.extract import Extractor
    from etl.messages import Message
    from etl.pending import Pending
    from etl.records import RawBatch, Reject, StagedItem, StoredRecord
    from etl.source import AnySource
    from settings import Settings

    Publish = Callable[[list[Message]], object]

P = ParamSpec("P")
T = TypeVar("T")

SLICE_SECONDS = 60.0
# The lease outlives an HTTP attempt by this much: seconds.
MARGIN = 5.0
# Work that computes looks at its claim this often: seconds.
LOOK_SECONDS = 2.0
# What computes for longer without a look, or waits longer for the database than it ever would, is ended from outside.
COMPUTE_SECONDS = 15.0
DATABASE_SECONDS = 90.0
# Failures in which a source did not answer, or not in time: its next slices belong to the share of slow ones.
MISSES = frozenset({"timeout", "too_slow", "connection_failed", "tls_failed"})

log = structlog.get_logger(__name__)


def extract(database: Database, settings: Settings, run_id: UUID, worker: str, publish: Publish) -> None:
    """Extract one slice of a run; each batch is published as soon as it is committed."""
    lease, processes = settings.lease.total_seconds(), settings.worker_processes
    claim = database.transact(claim_run, run_id, worker, lease, processes)
    if claim is None:
        return
    structlog.contextvars.bind_contextvars(source=claim.config["name"], run_id=str(run_id))
    piece = Slice(database, settings, claim, publish)
    BOARD.hold(RUN, run_id, claim.token, DATABASE_SECONDS)
    try:
        failure = piece.guarded()
    finally:
        BOARD.free()
    if failure is not None:
        log.warning("extraction_failed", code=failure.code, message=failure.message)
        piece.clear_scratch()
        database.transact(fail_extraction, piece.claim, failure)
    database.transact(close_run, run_id)
    if piece.is_slow:
        publish(list(database.transact(send_slow_runs)))


class Slice:
    """The work on a claimed run until its time is up, it has to wait, or the source ends."""

    def __init__(self, database: Database, settings: Settings, claim: RunClaim, publish: Publish) -> None:
        """The lease was taken just now."""
        self.claim = claim
        self.is_slow = claim.slow
        self._pace = Pace(answered=claim.answered, misses=claim.misses, slow=claim.slow, alone=claim.alone)
        self._seconds = self._pace.slice_seconds(SLICE_SECONDS)
        self._database = database
        self._settings = settings
        self._send = publish
        self._lease = settings.lease.total_seconds()
        self._started = time.monotonic()
        self._looked = self._started
        self._leased_until = self._started + self._lease
        self._batches_before = claim.batches
        self._pending: Pending | None = None
        self._checkpoint = msgspec.convert(claim.checkpoint, Checkpoint)
        self._hearing = Hearing(lambda: self._keep_lease(ALIVE_SECONDS), self._on_warning)

    def guarded(self) -> Failure | None:
        """Do the work; the failure that ends the extraction, if there is one."""
        try:
            self._work()
        except WaitError as error:
            self._note_slowness(error.cause)
            self._release("waiting", wait=error.seconds, position=self._waiting(error))
        except (LeaseLostError, StorageUnavailableError, StorageConflictError):
            raise
        except SoftTimeLimitExceeded:
            return self._cut_short()
        except ETLError as error:
            self._note_slowness(error)
            self._note_failure(error)
            return Failure(error.code, error.message)
        except MemoryError:
            return self._out_of_memory()
        except Exception as error:
            # A defect of ours must not look like a dead worker that is worth five more tries.
            log.exception("extraction_defect")
            return Failure("internal_error", f"{type(error).__name__} in the extractor; the log has the details")
        return None

    def _work(self) -> None:
        source = declared.parse(self.claim.config)
        start = self._start(source)
        extractor = self._open(source)
        mapper = Mapper(source, self._settings.max_record)
        batcher = Batcher(mapper, self._settings.batch_size, self._is_over)
        for batch in batcher.batches(extractor.pages(start), start):
            stored = self._store(batch, mapper)
            if batch.position.finished:
                # The claim went with it, and is not to be missed.
                BOARD.free()
            if stored.batch_id is not None:
                self._publish([BatchMessage(stored.batch_id, normalized=stored.normalized)])
            if batch.position.finished:
                self._note_poll(source)
                return
            if len(stored.open_batches) >= MAX_OPEN_BATCHES:
                self._make_room()
                return
            if self._is_over():
                self._release("queued", dispatch=True)
                return

    def _cut_short(self) -> Failure | None:
        """The time limit ended the slice: again, unless it got nowhere several times in a row."""
        log.warning("slice_too_long", attempt=self.claim.attempt)
        if self.claim.batches == self._batches_before and self.claim.attempt >= MAX_ATTEMPTS:
            return Failure("too_slow", "fetching or unpacking took longer than a task may, several times in a row")
        self._release("queued", dispatch=True, in_order=self.claim.batches > self._batches_before)
        return None

    def _out_of_memory(self) -> Failure:
        limit = f"{self._settings.worker_memory // 2**20} MiB"
        death: Death = self._run(count_death, self.claim.config["name"], f"it needed more than {limit}")
        log.warning("process_died", deaths=death.deaths, cause="memory")
        return Failure("out_of_memory", f"its records need more memory than a worker process may use ({limit})")

    def _is_over(self) -> bool:
        return time.monotonic() - self._started > self._seconds

    def _publish(self, messages: Sequence[Message]) -> None:
        """Send messages; the time that a broker takes which hangs is not the source's."""
        BOARD.look(DATABASE_SECONDS)
        self._send(list(messages))
        BOARD.look(COMPUTE_SECONDS)

    def _run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A transaction; the time that it takes is not the source's."""
        BOARD.look(DATABASE_SECONDS)
        try:
            return self._database.transact(work, *args, **kwargs)
        finally:
            BOARD.look(COMPUTE_SECONDS)

    def _make_room(self) -> None:
        """Yield until half of the open batches are loaded; they may be already, while we still held the lease."""
        self._release("loading")
        if self._run(resume_extraction, self.claim.run_id):
            self._publish([ExtractMessage(self.claim.run_id)])

    def _start(self, source: AnySource) -> Position:
        """Where to begin: the run's position, or the checkpoint, if they belong to these settings."""
        config = declared.fingerprint(source)
        if self.claim.position.config == config:
            return self.claim.position
        if self.claim.position.config or self._checkpoint.config not in {"", config}:
            self._hearing.warn("config_changed", "the source's settings have changed; it is read from its start")
        watermark = self._checkpoint.watermark if self._checkpoint.config == config else None
        return Position(config=config, mapping=self.claim.mapping_version, watermark=watermark)

    def _open(self, source: AnySource) -> Extractor:
        """The extractor of the source.

        Raises:
            PostponedError: its server has asked for a pause that is not over.
            ConfigError: a secret is missing.
        """
        target = settled_target(target_for(source, self._secrets(source)), self.claim)
        if self.claim.postponed_for > 0:
            seconds = self.claim.postponed_for
            raise PostponedError(
                f"the server asked not to be called for another {seconds:.0f} s", code="not_due", seconds=seconds
            )
        ends = self._started + self._seconds
        policy = Policy(self._settings.max_retries, self._settings.allowed_private_hosts, ends)
        watch = Watch(
            self._keep_lease,
            self._on_retry,
            lambda: self.claim.batches > 0,
            self._on_answer,
            self._enter_share,
            lambda: self._pace,
        )
        http = HttpClient(policy, gate(), watch)
        return open_source(source, target, self._context(source, http))

    def _context(self, source: AnySource, http: HttpClient) -> Context:
        scratch = self._settings.state_dir / "downloads" / str(self.claim.run_id)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        before = self._checkpoint
        is_good = before.config == declared.fingerprint(source) and before.mapping == self.claim.mapping_version
        return Context(
            http=http,
            report=self._hearing,
            scratch=scratch,
            roots=self._settings.csv_roots,
            base=self._settings.sources_file.parent,
            checkpoint=before if is_good else Checkpoint(),
            now=datetime.now(UTC),
        )

    def clear_scratch(self) -> None:
        """Local copies of a run that is over are of no use."""
        for path in (self._settings.state_dir / "downloads").glob(f"{self.claim.run_id}*"):
            path.unlink(missing_ok=True)

    def _secrets(self, source: AnySource) -> dict[str, str]:
        values = {name: self._settings.secret(name) for name in declared.secrets_of(source)}
        missing = [name for name, value in values.items() if value is None]
        if missing:
            raise ConfigError(f"the secret {missing[0]} is not set", code="missing_secret")
        return {name: value for name, value in values.items() if value is not None}

    def _store(self, batch: RawBatch, mapper: Mapper) -> Stored:
        """Leave out what is known, store the rest. Mapping takes its time while no transaction is open."""
        BOARD.look(DATABASE_SECONDS)
        compared = self._compare(batch)
        BOARD.look(COMPUTE_SECONDS)
        staged = _normalize(mapper, compared.rows) if compared.rows and self._others_are_busy() else None
        stored = self._run(store_batch, self.claim, batch, compared, self._lease, staged)
        self._looked = time.monotonic()
        self._leased_until = self._looked + self._lease
        if self._pending is not None:
            self._pending.add(self.claim.batches, (r.external_id for r in batch.records if r.external_id is not None))
            self._pending.keep(stored.open_batches)
        self.claim = replace(
            self.claim,
            batches=self.claim.batches + bool(batch.extracted),
            open_batches=stored.open_batches,
            position=batch.position,
        )
        return stored

    def _compare(self, batch: RawBatch) -> Compared:
        if not batch.extracted:
            return Compared(Sifted([]), [], [])
        pending = self._pending = self._pending or self._database.read(find_pending, self.claim)
        return self._database.read(compare, self.claim, batch, pending)

    def _others_are_busy(self) -> bool:
        """Whether it is quicker to normalise here than to have another process read the rows back.

        Never after a slice that got nowhere: normalise can halve a batch, and so finds a record that kills its worker.
        """
        return self.claim.attempt <= 1 and len(self.claim.open_batches) >= self._settings.worker_processes

    def _keep_lease(self, seconds: float) -> None:
        """The lease must outlive what takes so many seconds, and whether we still have it is looked up now and then."""
        BOARD.look(seconds + COMPUTE_SECONDS)
        now = time.monotonic()
        if now + seconds + MARGIN < self._leased_until and now - self._looked < LOOK_SECONDS:
            return
        needed = max(self._lease, seconds + MARGIN)
        self._run(renew_run, self.claim.run_id, self.claim.token, needed)
        BOARD.look(seconds + COMPUTE_SECONDS)
        self._looked = time.monotonic()
        self._leased_until = self._looked + needed

    def _on_answer(self, seconds: float) -> None:
        """A source that answers in time leaves the share of slow ones, and makes room there for another."""
        if seconds > QUICK_ANSWER or (self._pace.answered and not self._pace.misses):
            return
        self._run(note_answer, self.claim.run_id, self.claim.config["name"])
        self._pace = replace(self._pace, answered=True, misses=0, slow=bool(self.claim.deaths))
        if self.is_slow and not self.claim.deaths:
            self.is_slow = False
            self._publish(self._run(send_slow_runs))

    def _enter_share(self) -> bool:
        """Whether a download may go on beyond its slice: within the share of slow sources."""
        self.is_slow = self.is_slow or self._run(enter_share, self.claim.run_id)
        return self.is_slow

    def _note_slowness(self, error: ETLError) -> None:
        run_id = self.claim.run_id
        if error.code in MISSES:
            self._run(note_miss, run_id, self.claim.config["name"])
        elif error.code == "slice_over":
            self._run(mark_slow, run_id)
        else:
            return
        self.is_slow = True

    def _on_retry(self, error: ETLError, tries: int, seconds: float) -> None:
        log.warning("retry", code=error.code, message=error.message, tries=tries, wait=round(seconds, 1))
        detail = {"code": error.code, "message": error.message, "tries": tries, "wait": round(seconds, 1)}
        self._run(record_event, self.claim.run_id, "retry", **detail)

    def _on_warning(self, code: str, message: str) -> None:
        detail = {"code": code, "message": message[:500]}
        self._run(record_event, self.claim.run_id, "warning", **detail)

    def _note_poll(self, source: AnySource) -> None:
        """Nothing is written for a source whose server has no wishes, and had none."""
        poll = self._hearing.poll(self.claim, honour_cache=source.honour_cache)
        if poll and (self.claim.manners.noted or poll.fresh or poll.rest or poll.moved_to):
            self._run(note_poll, source.name, poll)

    def _note_failure(self, error: ETLError) -> None:
        name, manners = self.claim.config["name"], self.claim.manners
        if isinstance(error, PostponedError) and error.code == "postponed":
            self._run(note_postponed, name, error.seconds)
        elif manners.moved_count >= MOVED_AFTER and not isinstance(error, PostponedError):
            self._run(note_not_moved, name)
        elif error.code == "http_410" and self.claim.position.cursor is None:
            self._run(note_gone, name, error.message)

    def _waiting(self, error: WaitError) -> Position:
        """The same place, with the failed tries counted."""
        source = declared.parse(self.claim.config)
        return msgspec.structs.replace(self._start(source), tries=error.tries)

    def _release(
        self,
        stage: str,
        *,
        wait: float = 0.0,
        dispatch: bool = False,
        position: Position | None = None,
        in_order: bool = True,
    ) -> None:
        released = self._run(
            release_run, self.claim, stage, wait=wait, dispatch=dispatch, position=position, in_order=in_order
        )
        BOARD.free()
        if released and dispatch:
            self._publish([ExtractMessage(self.claim.run_id)])


def _normalize(mapper: Mapper, records: list[StoredRecord]) -> tuple[list[StagedItem], list[Reject]] | None:
    """None for a defect of ours: it is to cost a record and not the run, and the task can find out which."""
    try:
        return mapper.normalize(records)
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        log.exception("mapping_defect")
        return None
