"""One scenario's surroundings: servers, a service with workers to break, sources to load, and a clock on recovery."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg2
import requests

from bench.faults.oracle import Verdict, judge
from testkit.service import Service, make_database, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from bench.faults.against import Product
    from bench.faults.truth import Truth
    from testkit.fake_server import FakeServer, Handler
    from testkit.service import Servers

QUIET_SECONDS = 300.0


@dataclass
class Report:
    """What a scenario did and what came of it."""

    scenario: str
    seed: int
    faults: dict[str, int] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)
    recovery: list[float] = field(default_factory=list)
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    table: list[str] = field(default_factory=list)

    def count(self, fault: str) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + 1

    def tell(self, line: str) -> None:
        """Add a line to the table, and show it at once: the rest may take minutes."""
        self.table.append(line)
        print(f"  {line}", flush=True)

    def line(self) -> str:
        v = self.verdict
        faults = ", ".join(f"{count} {name}" for name, count in self.faults.items()) or "no faults"
        recovery = f" recovery p50/p95/max {_percentiles(self.recovery)} s" if self.recovery else ""
        more = " ".join(f"{name}={value}" for name, value in self.figures.items())
        books = f"lost {v.lost}, doubled {v.doubled}, stale {v.stale}, stuck {v.stuck}"
        return f"{self.scenario}: {v.records} records, {faults}: {books};{recovery} {more} ({self.seconds:.0f} s)"

    def as_json(self) -> str:
        body = {**vars(self), "verdict": vars(self.verdict), "recovery": [round(one, 2) for one in self.recovery]}
        return json.dumps(body)


class Arena:
    """Everything a scenario breaks."""

    def __init__(
        self,
        servers: Servers,
        product: Product,
        fake_server: FakeServer,
        truth: Truth,
        folder: Path,
        report: Report,
    ) -> None:
        """Make a database and declare the sources; nothing is started."""
        self._template = product.template
        self.servers = servers
        self.url = fake_server.url
        self.truth = truth
        self.report = report
        self.dice = random.Random(report.seed)
        self.service = Service(servers, self._database(servers), folder, product.tree)
        self.service.environment |= {"LEASE_SECONDS": "5", "BATCH_SIZE": "1000", "WORKER_PROCESSES": "2"}
        self._fake_server = fake_server
        self._begin()

    def renew(self) -> None:
        """Stop all, and begin with an empty database."""
        self.stop()
        self._database(self.servers)
        self._begin()

    def _database(self, servers: Servers) -> str:
        return make_database(servers, "faults", template=self._template)

    def _begin(self) -> None:
        self.service.flush_broker()
        self.declare()

    def declare(self) -> None:
        """Declare the sources as the truth has them now."""
        done = self.service.declare(self.truth.document(self._fake_server))
        if done.returncode:
            raise RuntimeError(done.stderr)

    def sink(self, path: str, handler: Handler) -> str:
        """An address of the outside world that somebody listens at."""
        return self._fake_server.on(path, handler)

    def start_worker(self, name: str, environment: Mapping[str, str] | None = None, *, processes: int = 2) -> None:
        arguments = ("-A", "worker", "worker", f"--concurrency={processes}", f"--hostname={name}@faults")
        environment = {"WORKER_PROCESSES": str(processes), **(environment or {})}
        self.service.start(name, "bench.faults.launcher", "celery", *arguments, "--loglevel=INFO", **environment)

    def kill_worker(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """SIGKILL the whole group, and start another as a supervisor would."""
        self.service.kill(name)
        self.report.count("SIGKILL")
        self.start_worker(name, environment)

    def queue_all(self) -> None:
        wait_until(lambda: self.service.post("/runs", {}).status_code in {202, 409}, 60)

    def active(self) -> int:
        return int(self.service.sql("SELECT count(*) FROM etl_runs WHERE status IN ('queued', 'running')")[0])

    def progress(self) -> tuple[Any, ...]:
        """Changes whenever a page is stored or a batch moves on."""
        query = """SELECT (SELECT sum(batches) FROM etl_runs),
                   (SELECT count(*) FROM etl_batches WHERE state = 'loaded'), (SELECT count(*) FROM etl_runs WHERE status IN ('success', 'partial', 'failed'))"""
        return tuple(self.service.sql(query)[0])

    def await_progress(self) -> None:
        """Measure how long it takes until something moves again."""
        started = time.monotonic()
        before = self._progress_or_none()
        while time.monotonic() - started < 60:
            now = self._progress_or_none()
            if now is not None and now != before and before is not None:
                self.report.recovery.append(time.monotonic() - started)
                return
            before = before or now
            if now is not None and not self.active():
                return
            time.sleep(0.1)

    def await_release(self) -> None:
        """Measure how long it takes until everything that was held at this moment has been taken up again."""
        started = time.monotonic()
        held = """SELECT 'run ' || run_id || token FROM etl_runs WHERE lease_expires_at IS NOT NULL
            UNION ALL SELECT 'batch ' || batch_id || ' ' || token FROM etl_batches WHERE lease_expires_at IS NOT NULL"""
        before = set(self.service.sql(held))
        wait_until(lambda: not before & set(self.service.sql(held)), 120)
        self.report.recovery.append(time.monotonic() - started)

    def keep_busy(self) -> None:
        """When all is loaded, let every record change, and load again."""
        if not self.active():
            self.truth.round += 1
            self.queue_all()

    def settle(self) -> Verdict:
        """Let what is under way end, without another run that could heal a loss, and judge."""
        self._await_quiet()
        return judge(self.service, self.truth)

    def stop(self) -> None:
        self.service.stop_all()

    def freeze(self, name: str) -> None:
        os.killpg(self.service.process_id(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.killpg(self.service.process_id(name), signal.SIGCONT)

    def ask(self, source: str) -> tuple[float, int]:
        """Ask for a run; seconds until the answer, and its status."""
        started = time.monotonic()
        response = requests.post(self.service.url + "/runs", json={"source": source}, timeout=30)
        return time.monotonic() - started, response.status_code

    def _await_quiet(self) -> None:
        try:
            wait_until(lambda: not self.active(), QUIET_SECONDS)
        except AssertionError:
            print("not everything ended in time", file=sys.stderr)

    def _progress_or_none(self) -> tuple[Any, ...] | None:
        try:
            return self.progress()
        except psycopg2.Error:
            return None


def _percentiles(values: list[float]) -> str:
    ordered = sorted(values)
    picks = (ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))], ordered[-1])
    return "/".join(f"{pick:.1f}" for pick in picks)
