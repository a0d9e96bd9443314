"""Who looks on while the service runs: at its memory, at its probe, and at what it says about its sources."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import requests

if TYPE_CHECKING:
    from testkit.service import Service

KEY = "bench-key-for-cancelling"  # pragma: allowlist secret
# The slowest answer that a probe waits for: seconds.
_PATIENCE = 10.0


class Onlooker(threading.Thread):
    """Looks every so many seconds, until it is stopped."""

    seconds = 1.0

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True, name=type(self).__name__)
        self.service = service
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self.seconds):
            self.look()

    def look(self) -> None:
        """What it does each time."""

    def stop(self) -> None:
        self._stopped.set()
        self.join(2 * _PATIENCE)


class Memory(Onlooker):
    """The peak resident size of the worker and of each of its processes, in bytes, and how many of these have ended."""

    seconds = 0.2

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.leader = psutil.Process(service.process_id("worker"))
        self.peaks: dict[int, int] = {}
        self.ended = 0
        self._alive: set[int] = set()

    def look(self) -> None:
        alive = set()
        for process in processes(self.leader):
            with contextlib.suppress(psutil.Error):
                size = process.memory_info().rss
                self.peaks[process.pid] = max(size, self.peaks.get(process.pid, 0))
                alive.add(process.pid)
        self.ended += len(self._alive - alive)
        self._alive = alive


class Probe(Onlooker):
    """`GET /health/ready`: how often it was asked and failed, and the slowest answer in seconds."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.asked = self.failed = 0
        self.slowest = 0.0

    def look(self) -> None:
        started, good = time.monotonic(), False
        with contextlib.suppress(requests.RequestException):
            good = requests.get(self.service.url + "/health/ready", timeout=_PATIENCE).ok
        self.asked += 1
        self.failed += not good
        self.slowest = max(self.slowest, time.monotonic() - started)


class Shown(Onlooker):
    """The sources that `GET /health` shows as set aside, with the reading of the database's clock after it."""

    seconds = 2.0

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.since: dict[str, Any] = {}

    def look(self) -> None:
        with contextlib.suppress(requests.RequestException, ValueError, KeyError):
            answer = requests.get(self.service.url + "/health", timeout=_PATIENCE).json()
            names = [one["name"] for one in answer["sources"] if one.get("not_before_reason") == "set_aside"]
            for name in names:
                self.since.setdefault(name, self.service.sql("SELECT clock_timestamp()")[0])


def processes(leader: psutil.Process) -> list[psutil.Process]:
    """A process and all below it; none when it has ended."""
    with contextlib.suppress(psutil.Error):
        return [leader, *leader.children(recursive=True)]
    return []


def seconds_to_cancel(service: Service, leader: psutil.Process, source: str, ends: float) -> float | None:
    """Cancel a run that computes; seconds until another source's run begins in the place that it held.

    Args:
        service: has a run of the source, soon.
        leader: the worker's main process.
        source: its name.
        ends: when to give up, by the monotonic clock.

    Returns:
        None when that did not happen, or the source never ran.
    """
    held = _held(service, source, ends)
    if held is None:
        return None
    run_id, holder = held
    others = {process.pid for process in processes(leader)} - {holder}
    since = service.sql("SELECT clock_timestamp()")[0]
    started = time.monotonic()
    answer = requests.post(f"{service.url}/runs/{run_id}/cancel", headers={"X-API-Key": KEY}, timeout=_PATIENCE)
    assert answer.status_code == 202, answer.text
    while time.monotonic() < ends:
        alive = {process.pid for process in processes(leader)}
        if holder in alive:
            others |= alive - {holder}
        query = f"SELECT worker FROM etl_runs WHERE started_at > '{since}' AND source_name <> '{source}'"
        if {_process_id(worker) for worker in service.sql(query) if worker} - others:
            return time.monotonic() - started
        time.sleep(0.1)
    return None


def _held(service: Service, source: str, ends: float) -> tuple[str, int] | None:
    """A run that has been computing for some seconds, and the process that it holds."""
    query = f"""SELECT run_id::text, worker FROM etl_runs WHERE source_name = '{source}' AND status = 'running'
        AND worker IS NOT NULL AND claimed_at < clock_timestamp() - interval '3 s'"""
    while time.monotonic() < ends:
        if found := service.sql(query):
            run_id, worker = found[0]
            return run_id, _process_id(worker)
        time.sleep(0.5)
    return None


def _process_id(worker: str) -> int:
    """A worker's name ends with the id of its process."""
    found = re.search(r"(\d+)$", worker)
    assert found, worker
    return int(found[1])
