"""The service while things crash at points: PostgreSQL while a process stands there, or the process itself."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import requests

from bench.faults.aims import Aims
from bench.faults.driver import FOLDER
from testkit.service import wait_until

if TYPE_CHECKING:
    from concurrent.futures import Future

    from bench.faults.arena import Arena

KEY = "fault-suite"
WORKER, BEAT, WEB = "one", "beat", "web"
# How long PostgreSQL is away: seconds.
AWAY = 0.1
# Seconds until all of a point must be done.
PATIENCE = 90.0

_RUNS = """
    SELECT count(DISTINCT source_name) FILTER (WHERE created_at >= '{since}'),
        count(*) FILTER (WHERE completed_at IS NULL) FROM etl_runs"""
_EXPIRE = """
    UPDATE etl_runs SET lease_expires_at = clock_timestamp() WHERE lease_expires_at IS NOT NULL;
    UPDATE etl_batches SET lease_expires_at = clock_timestamp() WHERE lease_expires_at IS NOT NULL"""


@dataclass(frozen=True)
class Crash:
    """What dies at a point: PostgreSQL by a signal, or the process that is there."""

    name: str
    number: int | None


@dataclass
class Crashes:
    """The service while things crash at points."""

    arena: Arena
    aims: Aims = field(init=False)

    def __post_init__(self) -> None:
        self.aims = Aims(self.arena.service.folder / "points")
        # Many batches, so that extraction also waits for room and is sent for again by a load.
        self.arena.service.environment |= {
            FOLDER: str(self.aims.folder),
            "BATCH_SIZE": "20",
            "LEASE_SECONDS": "2",
            "API_KEYS": KEY,
            "ENABLE_SCHEDULER": "true",
        }
        self._calls = ThreadPoolExecutor(1)

    def start(self) -> None:
        """A worker of one process, so that the order of its work is known, and the web."""
        arguments = ("gunicorn", "-c", "web/gunicorn_config.py", "--workers=1", "web.wsgi:app")
        self.arena.service.start(WEB, "bench.faults.launcher", *arguments)
        self.start_worker()
        wait_until(lambda: self.arena.service.get("/health/ready")["status"] == "ready")
        self.work()

    def leave_disk_alone(self, *, leave: bool) -> None:
        """What these crashes end is processes, so what the system has is not lost; to sync it took most of the time."""
        self.sql(f"ALTER SYSTEM SET fsync = {'off' if leave else 'on'}")
        self.sql("SELECT pg_reload_conf()")

    def start_worker(self) -> None:
        self.arena.start_worker(WORKER, processes=1)

    def work(self) -> None:
        """Let every record change, and load it undisturbed."""
        self.arena.truth.round += 1
        since = self.now()
        self.ask().result(PATIENCE)
        self.await_done(since)

    def ask(self) -> Future[None]:
        return self._calls.submit(_insist, f"{self.arena.service.url}/runs", {202, 409})

    def post_each(self, path: str, bodies: list[dict[str, Any]], accepted: set[int]) -> Future[None]:
        """Ask for several things, one after the other."""

        def insist() -> None:
            for body in bodies:
                _insist(f"{self.arena.service.url}{path}", accepted, body)

        return self._calls.submit(insist)

    def warm_up(self) -> None:
        """The web finds out which of its connections are dead, lest it counts their statements."""
        _insist(f"{self.arena.service.url}/runs/{UUID(int=0)}/cancel", {404})

    def cancel(self, run_id: str) -> Future[None]:
        return self._calls.submit(_insist, f"{self.arena.service.url}/runs/{run_id}/cancel", {202, 404, 409})

    def now(self) -> str:
        return str(self.sql("SELECT clock_timestamp()::text")[0])

    def sql(self, query: str) -> list[Any]:
        return self.arena.service.sql(query)

    def is_done(self, since: str) -> bool:
        """Whether every source has had a run since then, and none is active."""
        return bool(self.sql(_RUNS.format(since=since))[0] == (self.arena.truth.sources, 0))

    def await_done(self, since: str) -> None:
        """Wait for a run of every source since then, and its end; no more slots meanwhile."""
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.sql(_RUNS.format(since=since))[0][0] == self.arena.truth.sources, 60)
            self.sql("UPDATE sources SET next_run_at = clock_timestamp() + interval '1 day'")
            wait_until(lambda: self.is_done(since), PATIENCE)

    def crash(self, crash: Crash) -> None:
        """Let happen what the point is for, and everything that died be started again."""
        if crash.number is None:
            self.arena.service.kill(WORKER)
            self.start_worker()
            self.sql(_EXPIRE)
            self.aims.wake()
            return
        self.arena.servers.crash("postgres", crash.number)
        self.aims.release()
        time.sleep(AWAY)
        self.arena.servers.start("postgres")
        self.aims.wake()

    def close(self) -> None:
        self._calls.shutdown(cancel_futures=True)


def _insist(address: str, accepted: set[int], body: dict[str, Any] | None = None) -> None:
    """As a user would: again until it is done."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(requests.RequestException):
            answer = requests.post(address, json=body or {}, headers={"X-API-Key": KEY}, timeout=60)
            if answer.status_code in accepted:
                return
        time.sleep(0.1)
