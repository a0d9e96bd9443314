"""Runs sources in one process: messages are kept in a list and handled one by one, so a test can step between them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from config.settings import Settings
from db.queries import sweep
from db.queries.declaring import apply_sources
from db.queries.replays import queue_replay
from db.queries.runs import NewRun, get_run, queue_run
from db.queries.share import send_slow_runs
from db.session import Database
from etl.declare.catalog import Scheduled
from etl.declare.revision import Author, Origin
from etl.declare.source import Schedule, parse
from etl.errors import LeaseLostError, StorageUnavailableError
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.limiter import HostLimiter, LocalHostStates
from etl.runs.messages import ExtractMessage, Message
from etl.runs.outcome import Trigger
from etl.runs.replays import EVERYTHING, Scope
from web.present.runs import present_run
from worker.extraction import SLICE_SECONDS
from worker.inline import handle
from worker.process import Process


class SourceRunner:
    def __init__(self, database: Database, settings: Settings, folder: Path) -> None:
        self.database = database
        self.settings = settings
        self.folder = folder
        self.messages: list[Message] = []
        self.limiter = HostLimiter(LocalHostStates(), BreakerPolicy(5, 60), "test")
        self.slice_seconds = SLICE_SECONDS

    @property
    def process(self) -> Process:
        return Process("test", self.settings, self.database, self.limiter)

    def declare(self, *documents: dict[str, Any]) -> None:
        """Apply sources; those given before and not now are disabled."""
        sources = list(map(parse, documents))
        declared = [Scheduled(source, source.schedule or Schedule(every="30m")) for source in sources]
        self.database.transact(apply_sources, declared, Author(Origin.FILE, "file"), prune=True)

    def queue(self, name: str) -> UUID:
        run_id = uuid4()
        assert self.database.transact(queue_run, NewRun(run_id, name, "csv", Trigger.API))
        self.database.transact(send_slow_runs)
        self.messages.append(ExtractMessage(run_id))
        return run_id

    def step(self, message: Message | None = None) -> None:
        """Handle one message as a worker would; by default the next one."""
        with contextlib.suppress(LeaseLostError):
            handle(
                self.process,
                message or self.messages.pop(0),
                self.messages.extend,
                slice_seconds=self.slice_seconds,
            )

    def drain(self) -> None:
        """Handle all messages; what waits for a few seconds only is not waited for."""
        while self.messages or self._woken():
            self.step()

    def _woken(self) -> bool:
        with contextlib.suppress(StorageUnavailableError):
            self._wake()
        return bool(self.messages)

    def _wake(self) -> None:
        """What the sweeper would send for in the next five seconds, sent now."""
        self.sql(
            """UPDATE etl_runs SET not_before = NULL WHERE stage = 'waiting' AND status = 'running'
            AND not_before < clock_timestamp() + interval '5 s'"""
        )
        self.messages += self.database.transact(send_slow_runs)
        if self.sql("SELECT 1 FROM etl_runs WHERE stage = 'waiting' AND status = 'running' AND not_before IS NULL"):
            self.messages += self.database.transact(sweep.due_runs, queue_empty=True)

    def run(self, name: str) -> dict[str, Any]:
        """Run a source to its end; the run as the API shows it. Its counts must add up."""
        run_id = self.queue(name)
        self.drain()
        return self.show(run_id)

    def replay(self, name: str, scope: Scope = EVERYTHING, trigger: Trigger = Trigger.REPLAY) -> dict[str, Any]:
        """Drive stored records of a source again, to the end; the run as the API shows it."""
        run_id = uuid4()
        self.database.transact(queue_replay, run_id, name, trigger, scope)
        self.messages.append(ExtractMessage(run_id, low=True))
        self.drain()
        return self.show(run_id)

    def show(self, run_id: UUID) -> dict[str, Any]:
        run = self.database.transact(lambda c: present_run(get_run(c, run_id)))
        if run["status"] in {"success", "partial"}:
            assert run["records_not_loaded"] == 0, run
        return run

    def write(self, name: str, body: str | bytes) -> str:
        (self.folder / name).write_bytes(body.encode() if isinstance(body, str) else body)
        return name

    def sql(self, query: str, **values: Any) -> list[Any]:
        """The rows of a query; single columns as plain values."""
        with self.database.transaction() as connection:
            result = connection.execute(text(query), values)
            rows = list(result) if result.returns_rows else []
        return [row[0] if len(row) == 1 else tuple(row) for row in rows]

    def open_batches(self) -> list[int]:
        return self.sql("SELECT batch_id FROM etl_batches WHERE state IN ('extracted', 'normalized') ORDER BY batch_id")
