"""The service as a benchmark sees it: started with some workers, given a source, timed, and watched for memory."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import psycopg2

from testkit.service import Service, make_database
from testkit.tree import PRESENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testkit.service import Servers
    from testkit.tree import Tree

# Seldom enough to cost next to nothing on a machine that the benchmark fills.
_SAMPLE_SECONDS = 0.25
_POLL_SECONDS = 0.05


class Bench:
    """Servers, a folder, and what is measured in them."""

    def __init__(self, servers: Servers, folder: Path, tree: Tree = PRESENT, template: str = "migrated") -> None:
        """`template` is a database with the schema of the tree."""
        self.servers = servers
        self.folder = folder
        self._tree = tree
        self._template = template
        self._made = 0

    def database(self, name: str = "bench") -> str:
        """A fresh migrated database in place of the one before, whose vacuuming and writing out would disturb."""
        url = make_database(self.servers, name, template=self._template)
        settle(url)
        return url

    @contextlib.contextmanager
    def service(
        self, *, processes: int = 2, web: bool = True, database: str = "bench", **environment: str
    ) -> Iterator[Service]:
        """A running service with one worker of some processes, on a fresh database."""
        self._made += 1
        place = self.folder / f"service{self._made}"
        place.mkdir()
        service = Service(self.servers, self.database(database), place, self._tree)
        service.environment |= {"LEASE_SECONDS": "60", "BATCH_SIZE": "5000", "LOG_LEVEL": "WARNING"}
        service.environment |= {"CSV_ROOTS": str(self.folder), "WORKER_PROCESSES": str(processes), **environment}
        service.flush_broker()
        try:
            if web:
                service.start_web("--workers=2")
            start_worker(service, processes)
            yield service
        finally:
            service.stop_all()


def settle(database_url: str) -> None:
    """Do now what the database would do of itself in the half hour between two runs, and finish writing."""
    connection = psycopg2.connect(database_url)
    connection.autocommit = True
    connection.cursor().execute("VACUUM (ANALYZE)")
    connection.cursor().execute("CHECKPOINT")
    connection.close()
    os.sync()


def start_worker(service: Service, processes: int) -> None:
    """One worker, and wait until it takes work."""
    arguments = ("celery", "-A", "worker", "worker", f"--concurrency={processes}", "--hostname=bench@test")
    service.start("worker", *arguments)
    deadline = time.monotonic() + 30
    while not service.sql("SELECT 1 FROM etl_workers WHERE kind = 'worker'"):
        assert time.monotonic() < deadline, service.log("worker")
        time.sleep(0.05)


def timed_run(service: Service, source: str, seconds: float = 3600) -> tuple[float, dict[str, Any]]:
    """From the request to the last item: seconds, and the run."""
    connection = psycopg2.connect(service.database_url)
    connection.autocommit = True
    cursor = connection.cursor()
    started = time.monotonic()
    run_id = service.run(source)
    while True:
        cursor.execute("SELECT status IN ('queued', 'running') FROM etl_runs WHERE run_id = %s", [run_id])
        if not cursor.fetchall()[0][0]:
            break
        assert time.monotonic() - started < seconds
        time.sleep(_POLL_SECONDS)
    taken = time.monotonic() - started
    connection.close()
    run = service.get(f"/runs/{run_id}")
    assert run["status"] == "success", run
    return taken, run


class Memory(threading.Thread):
    """The largest resident size of any worker process, in bytes, while it runs."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self._processes: list[psutil.Process] = []
        self._leader = psutil.Process(service.process_id("worker"))
        self._stopped = threading.Event()
        self.base = self._largest()
        self.peak = self.base

    def run(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            self.peak = max(self.peak, self._largest())

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _largest(self) -> int:
        sizes = [0]
        self._processes = self._processes or self._leader.children(recursive=True)
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                sizes.append(process.memory_info().rss)
        return max(sizes)
