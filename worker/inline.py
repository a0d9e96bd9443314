"""A run in this process: what the tasks do, step by step and in one thread, with no broker and no worker.

It is for people with a debugger. A breakpoint may be stood at for as long as one likes: a second thread renews the
run's claims meanwhile, and keeps workers from taking it up.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from db.queries.closing import end_run
from db.queries.holding import hold_run, next_of_run
from db.queries.run_requests import request_runs
from db.queries.runs import get_run
from db.queries.sweep import unsend_runs
from db.session import Database
from etl.errors import (
    AlreadyActiveError,
    LeaseLostError,
    SourceInactiveError,
    StorageError,
)
from etl.runs.messages import ExtractMessage, PlanMessage
from etl.runs.outcome import ENDED, Failure, Outcome, Status, Trigger
from etl.runs.run_requests import Refusal
from worker import extraction, loading, planning
from worker.closing import close
from worker.extraction import SLICE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any
    from uuid import UUID

    from sqlalchemy import Row

    from config.settings import Settings
    from etl.runs.messages import Message
    from worker.process import Process, Publish

# Nobody waits for the process: a slice lasts as long as its person.
INLINE_SLICE_SECONDS = 86_400.0
# How often the claims are renewed, and how often what waits is looked at: seconds.
HOLD_EVERY = 1.0
LOOK_EVERY = 0.25

log = structlog.get_logger(__name__)


def handle(process: Process, message: Message, publish: Publish, *, slice_seconds: float = SLICE_SECONDS) -> None:
    """Do what the tasks do that a message is for.

    Raises:
        LeaseLostError: someone else has what it is about.
    """
    if isinstance(message, ExtractMessage):
        extraction.extract(process, message.run_id, publish, slice_seconds=slice_seconds)
        return
    if isinstance(message, PlanMessage):
        planning.plan(process, message.plan_id, publish)
        return
    if not message.normalized:
        publish(loading.normalize(process, message.batch_id))
    publish(loading.load(process, message.batch_id))


class InlineRunner:
    """Runs one source at a time, from the request to the end of its run."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._database = process.database
        self._messages: list[Message] = []

    def run(self, source_name: str) -> Row[Any]:
        """Run a source now; the run as it has ended. Whatever ends this before its time cancels the run.

        Raises:
            UnknownSourceError, SourceInactiveError, AlreadyActiveError: no run could be had.
        """
        run_id = self._request(source_name)
        try:
            with _held(self._process.settings, run_id, self._process.lease_seconds):
                self._finish(run_id)
        finally:
            cancelled = Outcome(Status.CANCELLED, Failure("cancelled", "whoever ran it by hand has left"))
            self._database.transact(end_run, run_id, cancelled)
        return self._database.read(get_run, run_id)

    def _request(self, source_name: str) -> UUID:
        run_id = uuid4()
        answer = self._database.transact(request_runs, [source_name], Trigger.CLI, run_id)
        if isinstance(answer, Refusal):
            raise SourceInactiveError(answer.message)
        if not answer.queued:
            active = answer.runs[0].run_id
            raise AlreadyActiveError(f"the source {source_name!r} has an active run: {active}", active_run_id=active)
        self._take(run_id, answer.messages)
        return run_id

    def _finish(self, run_id: UUID) -> None:
        """Handle what there is to do until the run has ended; what waits for a time is waited for."""
        pause = threading.Event()
        while self._database.read(get_run, run_id).status not in ENDED:
            while self._messages:
                self._handle(run_id, self._messages.pop(0))
            close(self._database, run_id)
            self._messages = self._database.read(next_of_run, run_id)
            if not self._messages:
                pause.wait(LOOK_EVERY)

    def _handle(self, run_id: UUID, message: Message) -> None:
        with suppress(LeaseLostError):
            handle(self._process, message, partial(self._take, run_id), slice_seconds=INLINE_SLICE_SECONDS)

    def _take(self, run_id: UUID, messages: Sequence[Message]) -> None:
        """Keep the messages of this run; those of others, for which there was room, are left to the sweepers."""
        others = [one for one in messages if isinstance(one, ExtractMessage) and one.run_id != run_id]
        self._messages += [one for one in messages if one not in others]
        if others:
            self._database.transact(unsend_runs, others)


@contextmanager
def _held(settings: Settings, run_id: UUID, lease_seconds: float) -> Iterator[None]:
    """While it lasts, the run belongs to this process."""
    stopped = threading.Event()
    keeper = threading.Thread(target=_hold, args=(settings, run_id, lease_seconds, stopped), name="holder", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stopped.set()
        keeper.join()


def _hold(settings: Settings, run_id: UUID, lease_seconds: float, stopped: threading.Event) -> None:
    database = Database(settings.database_url, name="kasparro-inline", pool_size=1, patience=0)
    while not stopped.is_set():
        try:
            database.transact(hold_run, run_id, lease_seconds)
        except StorageError as error:
            # The row is locked where the other thread stands in a transaction: then nobody else can have it either.
            log.debug("hold_postponed", reason=error.message)
        stopped.wait(HOLD_EVERY)
    database.close()
